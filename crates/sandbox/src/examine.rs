//! Checking units: the kernel's own cheap check, called on what another agent found, a fresh instance for each unit.

use forge_contract::duty::Examination;
use forge_contract::fragment::Fragment;
use forge_contract::report::{Checked, Finding, UnitVerdict};
use forge_contract::task::Task;
use forge_contract::{Failure, FailureCode};
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentType, InstancePre, Lift};

use crate::execute::{UnitRunner, prepare, room};
use crate::inputs::Inputs;
use crate::kernel::HostState;
use crate::kernel::bindings::exports::forgepool::kernel::unit as wit;
use crate::log::SharedLog;
use crate::{lift, trap};

/// The interface that a kernel exports where it can check.
const INTERFACE: &str = "forgepool:kernel/checks@1.0.0";

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Verdict {
    #[component(name = "sound")]
    Sound(f64),
    #[component(name = "wrong")]
    Wrong(String),
}

type Arguments<'a> = (&'a wit::Task, &'a wit::Fragment, &'a [u8]);
type Answer = (Result<Verdict, wit::Failure>,);

/// Where a component's `check` is; `None` where it exports none.
pub(crate) fn export(pre: &InstancePre<HostState>) -> Option<ComponentExportIndex> {
    let interface = pre.component().get_export_index(None, INTERFACE)?;
    pre.component().get_export_index(Some(&interface), "check")
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
    let Some(check) = runner.check else {
        return Err(Failure::new(FailureCode::AgentProtocol, "the task asks for a check and the kernel exports none"));
    };
    let found = inputs.found(&examination.found)?;
    let found = Fragment::decode(found).map_err(|error| {
        Failure::new(FailureCode::AgentFetch, trap::cut(format!("what was found is no fragment: {error}")))
    })?;
    let mut pieces = Pieces { found, whole: task.unit_count == 1 };
    let mut units = Vec::with_capacity(usize::try_from(task.unit_count).unwrap_or(0));
    for index in 0..task.unit_count {
        let unit = task.first_unit.saturating_add(index);
        let piece = pieces.take(index).and_then(lift::lowered).ok_or_else(|| {
            Failure::new(FailureCode::AgentProtocol, "what was found does not come apart into units").in_unit(unit)
        })?;
        let challenge = examination.challenge.of_unit(unit);
        let verdict = runner.check(&check, task, (unit, piece, &challenge), inputs, log);
        units.push(verdict.map_err(|failure| failure.in_unit(unit))?);
        on_progress(index + 1);
    }
    let mut checked = Checked { units };
    checked.shorten();
    Ok(checked)
}

/// What was found, unit by unit.
struct Pieces {
    found: Fragment,
    /// A shard of one unit is that unit's, whatever its parts are, and is not copied.
    whole: bool,
}

impl Pieces {
    fn take(&mut self, index: u64) -> Option<Fragment> {
        if self.whole {
            return Some(core::mem::replace(&mut self.found, Fragment { parts: Vec::new() }));
        }
        self.found.unit(usize::try_from(index).ok()?)
    }
}

impl UnitRunner {
    /// Instantiates, calls, judges the verdict. The instance dies here.
    fn check(
        &self,
        check: &ComponentExportIndex,
        task: &Task,
        (unit, found, challenge): (u64, wit::Fragment, &[u8]),
        inputs: &Inputs,
        log: &SharedLog,
    ) -> Result<UnitVerdict, Failure> {
        let argument = lift::task(task, unit)
            .ok_or_else(|| Failure::new(FailureCode::AgentProtocol, "the task has no such unit"))?;
        let mut store = Store::new(&self.engine, HostState::new(task.limits.memory_bytes, inputs.clone(), log));
        prepare(&mut store, task)?;
        let instantiated = self.pre.instance_pre().instantiate(&mut store);
        let refused = store.data().limiter.refused;
        let instance = instantiated.map_err(|error| trap::of_instantiation(&error, refused))?;
        let check = instance.get_typed_func::<Arguments<'_>, Answer>(&mut store, check).map_err(|error| {
            Failure::new(FailureCode::AgentCompile, trap::cut(format!("`check` has another type: {error}")))
        })?;
        room(&mut store, task)?;
        let called = check.call(&mut store, (&argument, &found, challenge));
        let refused = store.data().limiter.refused;
        let (answer,) = called.map_err(|error| trap::failure(&error, refused))?;
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
