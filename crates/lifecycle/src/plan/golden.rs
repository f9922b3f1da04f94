//! A known answer of a kernel as a task of one unit.

use forge_contract::canon;
use forge_contract::duty::Duty;
use forge_contract::manifest::Golden;
use forge_contract::seed::RootSeed;
use forge_contract::task::Task;
use forge_contract::{Failure, FailureCode, JobId};

use super::{Kernel, arguments, split};

fn refused(detail: impl Into<String>) -> Failure {
    Failure::new(FailureCode::RequestComponentGolden, detail)
}

/// The task that a known answer of this profile stands for: one unit, with the limits and parts of its stage.
///
/// Determinism: a pure function of its arguments; `job` is no part of the computation.
///
/// # Errors
/// `request.component_golden` where there is no such profile, stage or unit, the arguments do not fit the profile's
/// schema, or an input is not one of the stage.
pub fn golden_task(kernel: &Kernel, profile: &str, golden: &Golden, job: JobId) -> Result<Task, Failure> {
    let declared = kernel.manifest.profiles.get(profile);
    let declared = declared.ok_or_else(|| refused(format!("there is no profile '{profile}'")))?;
    let found = (0u32..).zip(&declared.stages).find(|(_, stage)| stage.name == golden.stage);
    let (stage_index, stage) = found.ok_or_else(|| refused(format!("there is no stage '{}'", golden.stage)))?;
    let given = golden.args.as_object().ok_or_else(|| refused("args: expected an object"))?;
    let args = arguments::complete(&declared.args, given).map_err(|failure| refused(failure.detail))?;
    let cut = split::cut(&stage.split, &args).map_err(|failure| refused(failure.detail))?;
    if golden.unit >= cut.units() {
        return Err(refused(format!("unit: there is no unit {}, the stage has {}", golden.unit, cut.units())));
    }
    let given = golden.reads();
    let declared = |name: &str| stage.inputs.iter().any(|input| input.name == name);
    if let Some((input, _)) = given.iter().find(|(input, _)| !declared(&input.name)) {
        return Err(refused(format!("inputs: the stage declares no input '{}'", input.name)));
    }
    // In the order of the stage, as in a plan. One that is not given is not there for the unit.
    let of_name = |name: &str| given.iter().find(|(input, _)| input.name == name).map(|(input, _)| input.clone());
    let inputs = stage.inputs.iter().filter_map(|input| of_name(&input.name)).collect();
    Ok(Task {
        job,
        stage_index,
        shard: u32::try_from(golden.unit).unwrap_or(u32::MAX),
        component: kernel.digest,
        component_bytes: kernel.bytes,
        profile: profile.to_owned(),
        stage: stage.name.clone(),
        args: canon::json(&args).map_err(|error| refused(format!("args have no canonical form: {error}")))?,
        key: RootSeed::explicit(&golden.seed).stage_key(&stage.name),
        cut,
        first_unit: golden.unit,
        unit_count: 1,
        limits: stage.limits,
        parts: stage.parts.clone(),
        inputs,
        duty: Duty::Compute,
    })
}
