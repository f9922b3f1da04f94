//! Checking units: the kernel's own cheap check, called on what another agent found, a fresh instance for each unit.

use forge_contract::duty::Examination;
use forge_contract::report::{Checked, Finding, UnitVerdict};
use forge_contract::task::Task;
use forge_contract::{Failure, FailureCode};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::execute::{UnitRunner, room};
use crate::inputs::Inputs;
use crate::kernel::HostState;
use crate::kernel::bindings::exports::forgepool::kernel::checks::{GuestIndices, Verdict};
use crate::kernel::bindings::exports::forgepool::kernel::unit as wit;
use crate::lift::{self, Pieces};
use crate::log::SharedLog;
use crate::trap;

/// The interface that a kernel exports where it can check.
const INTERFACE: &str = "forgepool:kernel/checks@1.0.0";

/// Where a component's `check` is; `None` where it exports no checks.
pub(crate) fn exported(pre: &InstancePre<HostState>) -> wasmtime::Result<Option<GuestIndices>> {
    let exported = pre.component().get_export_index(None, INTERFACE);
    exported.map(|_| GuestIndices::new(pre)).transpose()
}

/// Checks a shard's units in order, each with its own piece of what was found and its own challenge.
///
/// `on_progress` hears the number of units done after each.
///
/// # Errors
/// The first failure in unit order: a check fails as a unit does. `agent.protocol` where the kernel has no checks or
/// the fragment does not come apart; `agent.fetch` where what was found is not at hand or no fragment.
pub(crate) fn check_units(
    runner: &UnitRunner,
    task: &Task,
    examination: &Examination,
    inputs: &Inputs,
    log: &SharedLog,
    mut on_progress: impl FnMut(u64),
) -> Result<Checked, Failure> {
    let Some(checks) = &runner.checks else {
        return Err(Failure::new(FailureCode::AgentProtocol, "the task asks for a check and the kernel exports none"));
    };
    let found = inputs.found(&examination.found)?;
    let pieces = Pieces::of(found, task.unit_count).map_err(|error| {
        Failure::new(FailureCode::AgentFetch, trap::cut(format!("what was found is no fragment: {error}")))
    })?;
    let mut units = Vec::with_capacity(usize::try_from(task.unit_count).unwrap_or(0));
    for index in 0..task.unit_count {
        let unit = task.first_unit.saturating_add(index);
        let parts = pieces.unit(index).ok_or_else(|| {
            Failure::new(FailureCode::AgentProtocol, "what was found does not come apart into units").in_unit(unit)
        })?;
        let found = wit::FragmentParam { parts: &parts };
        let challenge = examination.challenge.of_unit(unit);
        let verdict = runner.check(checks, task, (unit, found, &challenge), inputs, log);
        units.push(verdict.map_err(|failure| failure.in_unit(unit))?);
        on_progress(index + 1);
    }
    let mut checked = Checked { units };
    checked.shorten();
    Ok(checked)
}

impl UnitRunner {
    /// Instantiates, calls, judges the verdict. The instance dies here.
    fn check(
        &self,
        checks: &GuestIndices,
        task: &Task,
        (unit, found, challenge): (u64, wit::FragmentParam<'_>, &[u8]),
        inputs: &Inputs,
        log: &SharedLog,
    ) -> Result<UnitVerdict, Failure> {
        let argument = lift::task(task, unit)
            .ok_or_else(|| Failure::new(FailureCode::AgentProtocol, "the task has no such unit"))?;
        let mut store = Store::new(&self.engine, HostState::new(task.limits.memory_bytes, inputs.clone(), log));
        let instance = self.instance(&mut store, task)?;
        let exported = checks.load(&mut store, &instance).map_err(|error| {
            Failure::new(FailureCode::AgentCompile, trap::cut(format!("`check` has another type: {error}")))
        })?;
        room(&mut store, task)?;
        let called = exported.call_check(&mut store, argument, found, challenge);
        let refused = store.data().limiter.refused;
        let answer = called.map_err(|error| trap::failure(&error, refused))?;
        let left = store.get_fuel().map_err(|error| trap::failure(&error, None))?;
        let finding = match answer.map_err(lift::failure)? {
            Verdict::Sound(error) => Finding::Sound { error },
            Verdict::Wrong(reason) => Finding::Wrong { reason: trap::cut(reason) },
        };
        if !finding.is_legal() {
            let detail = "the check accepts with a probability of error that is not within 0 and 1";
            return Err(Failure::new(FailureCode::AgentOutputInvalid, detail));
        }
        Ok(UnitVerdict { finding, fuel: task.limits.fuel.saturating_sub(left) })
    }
}
