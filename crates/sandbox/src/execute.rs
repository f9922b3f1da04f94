//! Running units: a fresh instance for each, and a shard as a run of them folded in tree order.

use std::time::Instant;

use forge_contract::duty::Duty;
use forge_contract::fragment::tree::{Fold, FoldError};
use forge_contract::fragment::{CombineError, Fragment};
use forge_contract::limits::SHARD_UNITS_MAX;
use forge_contract::report::{Completed, Outcome, UnitRecord, Usage};
use forge_contract::task::Task;
use forge_contract::{Digest, Failure, FailureCode};
use wasmtime::component::{Instance, InstancePre};
use wasmtime::{Engine, Store};

use crate::inputs::Inputs;
use crate::kernel::bindings::exports::forgepool::kernel::checks::GuestIndices as ChecksIndices;
use crate::kernel::bindings::exports::forgepool::kernel::unit::{self as wit, GuestIndices as UnitIndices};
use crate::kernel::{HostState, linker};
use crate::log::SharedLog;
use crate::{code, engine, examine, lift, trap};

/// A loaded kernel, ready to run any of its units.
///
/// Calls need [`engine::THREAD_STACK_BYTES`] of stack: see [`with_ample_stack`].
pub struct UnitRunner {
    pub(crate) engine: Engine,
    pre: InstancePre<HostState>,
    unit: UnitIndices,
    /// Where its check is, if it has one.
    pub(crate) checks: Option<ChecksIndices>,
}

/// What one unit gave.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRun {
    /// Its fragment, checked against the task.
    pub fragment: Fragment,
    /// The fragment's canonical bytes.
    pub bytes: Vec<u8>,
    /// Fuel that the call burned.
    pub fuel: u64,
    /// What it printed.
    pub log: String,
}

/// What running a shard gave.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ShardResult {
    /// A folded fragment with a record per unit, a verdict per unit where the task asks for a check, or the first
    /// failure in unit order.
    pub outcome: Outcome,
    /// What the units printed, in unit order, cut at `LOG_BYTES_MAX`.
    pub log: String,
    /// Measurements.
    pub usage: Usage,
}

impl ShardResult {
    /// A shard that failed before any unit ran.
    #[must_use]
    pub fn failed(failure: Failure) -> Self {
        Self { outcome: Outcome::Failed(failure), log: String::new(), usage: Usage::default() }
    }
}

impl UnitRunner {
    /// Loads code that [`code::compile`] made for an engine of the same backend, and links its imports.
    ///
    /// # Errors
    /// `agent.worker_lost` where the code is not this engine's; `agent.compile` where an import does not exist (it is
    /// named) or the kernel interface is not exported.
    pub fn load(engine: &Engine, code: &[u8]) -> Result<Self, Failure> {
        let component = code::load(engine, code)?;
        let linker = linker(engine).map_err(|error| code::refused(&error))?;
        let pre = linker.instantiate_pre(&component).map_err(|error| code::refused(&error))?;
        let unit = UnitIndices::new(&pre).map_err(|error| code::refused(&error))?;
        let checks = examine::exported(&pre).map_err(|error| code::refused(&error))?;
        Ok(Self { engine: engine.clone(), pre, unit, checks })
    }

    /// Whether the kernel can check units.
    #[must_use]
    pub fn checks(&self) -> bool {
        self.checks.is_some()
    }

    /// Runs one unit of a task in a fresh instance.
    ///
    /// Units: fuel counts the call alone, never instantiation.
    /// Determinism: a function of the code, the task without its job, and the inputs.
    ///
    /// # Errors
    /// The failure, at this unit.
    pub fn run_unit(&self, task: &Task, unit: u64, inputs: &Inputs) -> Result<UnitRun, Failure> {
        let log = SharedLog::default();
        let (fragment, bytes, fuel) = self.unit(task, unit, inputs, &log)?;
        Ok(UnitRun { fragment, bytes, fuel, log: log.lock().text() })
    }

    fn unit(
        &self,
        task: &Task,
        unit: u64,
        inputs: &Inputs,
        log: &SharedLog,
    ) -> Result<(Fragment, Vec<u8>, u64), Failure> {
        let found = self.call(task, unit, inputs, log);
        let checked = found.and_then(|(fragment, fuel)| {
            let bytes = check(task, unit, &fragment)?;
            Ok((fragment, bytes, fuel))
        });
        checked.map_err(|failure| failure.in_unit(unit))
    }

    /// Instantiates, calls, lifts. The instance dies here: nothing of it reaches the next unit.
    fn call(&self, task: &Task, unit: u64, inputs: &Inputs, log: &SharedLog) -> Result<(Fragment, u64), Failure> {
        let no_unit = || Failure::new(FailureCode::AgentProtocol, "the task has no such unit");
        let argument = lift::task(task, unit).ok_or_else(no_unit)?;
        let state = HostState::new(task.limits.memory_bytes, inputs.clone(), log);
        let mut store = Store::new(&self.engine, state);
        let called = self.call_in(&mut store, task, argument);
        drop(store);
        match called? {
            (Ok(found), fuel) => Ok((lift::fragment(found), fuel)),
            (Err(refusal), _) => Err(lift::failure(refusal)),
        }
    }

    fn call_in(&self, store: &mut Store<HostState>, task: &Task, argument: wit::Task<'_>) -> Result<Called, Failure> {
        let instance = self.instance(store, task)?;
        let exported = self.unit.load(&mut *store, &instance).map_err(|error| trap::of_instantiation(&error, None))?;
        room(store, task)?;
        let called = exported.call_execute(&mut *store, argument);
        let refused = store.data().limiter.refused;
        let found = called.map_err(|error| trap::failure(&error, refused))?;
        let left = store.get_fuel().map_err(|error| trap::failure(&error, None))?;
        Ok((found, task.limits.fuel.saturating_sub(left)))
    }

    /// A fresh instance, within the task's limits.
    pub(crate) fn instance(&self, store: &mut Store<HostState>, task: &Task) -> Result<Instance, Failure> {
        prepare(store, task)?;
        let instantiated = self.pre.instantiate(&mut *store);
        let refused = store.data().limiter.refused;
        instantiated.map_err(|error| trap::of_instantiation(&error, refused))
    }
}

/// Before a unit is instantiated: its limits hold for that too.
fn prepare(store: &mut Store<HostState>, task: &Task) -> Result<(), Failure> {
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(engine::HOSTCALL_BYTES_MAX);
    set_fuel(store, task.limits.fuel)
}

/// Before the call: instantiation may cost differently elsewhere; from here on every instruction counts the same
/// everywhere.
pub(crate) fn room(store: &mut Store<HostState>, task: &Task) -> Result<(), Failure> {
    store.set_hostcall_fuel(lifted_bytes_max(task));
    set_fuel(store, task.limits.fuel)
}

fn set_fuel(store: &mut Store<HostState>, fuel: u64) -> Result<(), Failure> {
    store.set_fuel(fuel).map_err(|error| trap::failure(&error, None))
}

type Called = (Result<wit::FragmentResult, wit::Failure>, u64);

/// Host bytes that a fragment within the output limit can take: a bucket is 2 bytes or more when encoded and 16 here.
fn lifted_bytes_max(task: &Task) -> usize {
    let bytes = task.limits.output_bytes.saturating_mul(8).saturating_add(1 << 16);
    usize::try_from(bytes).unwrap_or(usize::MAX).max(engine::HOSTCALL_BYTES_MAX)
}

/// The fragment's canonical bytes, once it is what the task declares.
fn check(task: &Task, unit: u64, fragment: &Fragment) -> Result<Vec<u8>, Failure> {
    let items = task.cut.slice(unit).map_or(0, |slice| slice.items());
    fragment
        .check(&task.parts, items)
        .map_err(|error| Failure::new(FailureCode::AgentOutputInvalid, trap::cut(error.to_string())))?;
    let bytes = fragment.encode();
    let limit = task.limits.output_bytes;
    if bytes.len() as u64 > limit {
        let detail = format!("the fragment has {} bytes where its limit is {limit}", bytes.len());
        return Err(Failure::new(FailureCode::AgentOutputTooLarge, detail));
    }
    Ok(bytes)
}

/// Does a shard's duty: runs its units in order, commits to each and folds them in tree order, or checks what was
/// found for each.
///
/// `on_progress` hears the number of units done after each.
/// Determinism: the outcome is a function of the code, the task without its job, and the inputs.
///
/// Errors: none of its own; a failure is an outcome.
pub fn run_shard(runner: &UnitRunner, task: &Task, inputs: &Inputs, on_progress: impl FnMut(u64)) -> ShardResult {
    let (wall, cpu) = (Instant::now(), thread_cpu_us());
    let log = SharedLog::default();
    let outcome = within_bounds(task, inputs).and_then(|()| match &task.duty {
        Duty::Compute => run_units(runner, task, inputs, &log, on_progress).map(Outcome::Completed),
        Duty::Check(examination) => {
            examine::check_units(runner, task, examination, inputs, &log, on_progress).map(Outcome::Checked)
        }
    });
    let outcome = outcome.unwrap_or_else(Outcome::Failed);
    let usage = Usage {
        wall_us: u64::try_from(wall.elapsed().as_micros()).unwrap_or(u64::MAX),
        cpu_us: thread_cpu_us().saturating_sub(cpu),
        prepare_us: 0,
    };
    ShardResult { outcome, log: log.lock().text(), usage }
}

fn within_bounds(task: &Task, inputs: &Inputs) -> Result<(), Failure> {
    inputs.fit(task)?;
    if task.unit_count == 0 || task.unit_count > SHARD_UNITS_MAX {
        let detail = format!("a shard has 1 to {SHARD_UNITS_MAX} units, not {}", task.unit_count);
        return Err(Failure::new(FailureCode::AgentProtocol, detail));
    }
    Ok(())
}

fn run_units(
    runner: &UnitRunner,
    task: &Task,
    inputs: &Inputs,
    log: &SharedLog,
    mut on_progress: impl FnMut(u64),
) -> Result<Completed, Failure> {
    let mut fold = Fold::new(task.unit_count);
    let mut units = Vec::with_capacity(usize::try_from(task.unit_count).unwrap_or(0));
    for index in 0..task.unit_count {
        let unit = task.first_unit.saturating_add(index);
        let (fragment, bytes, fuel) = runner.unit(task, unit, inputs, log)?;
        units.push(UnitRecord { digest: Digest::of(&bytes), fuel });
        fold.insert(index, 1, fragment).map_err(|error| fold_failure(error).in_unit(unit))?;
        on_progress(index + 1);
    }
    let folded = fold.finish().ok_or_else(|| Failure::new(FailureCode::AggregationIncomplete, "no unit was folded"))?;
    Ok(Completed { fragment: folded.encode(), units })
}

fn fold_failure(error: FoldError) -> Failure {
    let code = match &error {
        FoldError::Combine(CombineError::Overflow { .. }) => FailureCode::AggregationOverflow,
        FoldError::Combine(_) | FoldError::Misplaced { .. } => FailureCode::AggregationMismatch,
    };
    Failure::new(code, trap::cut(error.to_string()))
}

/// Processor time of this thread, microseconds.
fn thread_cpu_us() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(spent.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000)
}

/// Runs `work` on a thread with room for the deepest kernel, and gives what it gives.
///
/// A thread's default stack is smaller than what a unit may use, and a fault on it would end the process.
///
/// # Errors
/// The operating system's, where it has no thread or no stack.
pub fn with_ample_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("kernel".into())
            .stack_size(engine::THREAD_STACK_BYTES)
            .spawn_scoped(scope, || crate::wasi::with_runtime(work))?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}
