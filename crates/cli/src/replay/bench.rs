//! Tasks on all cores of this machine, their answers in order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use forge_contract::report::{Completed, Outcome};
use forge_contract::task::Task;
use forge_contract::{Failure, FailureCode};
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use forge_sandbox::{CageLevel, Compiler, Inputs, Worker, WorkerError};
use tokio::sync::{mpsc, watch};

use crate::progress::{Progress, Step};

/// Nobody waits for a lease here: a task takes what it takes.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A kernel made ready, and how many tasks run at once.
#[derive(Clone)]
pub struct Bench {
    kind: Kind,
    width: usize,
}

#[derive(Clone)]
enum Kind {
    Caged { program: PathBuf, code: Arc<Vec<u8>>, level: CageLevel },
    Local(Arc<LocalKernel>),
}

/// Units done of units to do, shown as they come.
pub struct Counter(Mutex<(Progress, u64, u64)>);

impl Counter {
    /// Of `total` units none is done.
    #[must_use]
    pub fn new(hidden: bool, total: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new((Progress::new(hidden), 0, total))))
    }

    fn add(&self, units: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = state.1.saturating_add(units).min(state.2);
        let step =
            Step { status: "replaying".into(), units_done: state.1, units_total: state.2, agents: 0, estimate: None };
        state.0.step(&step);
    }
}

/// Answers as they come, by the task's place.
pub struct Answers {
    receiver: mpsc::Receiver<(usize, Result<Completed, Failure>)>,
    early: BTreeMap<usize, Result<Completed, Failure>>,
}

impl Answers {
    /// The answer of the task at this place. Blocks; not for a runtime's own thread.
    pub fn wait(&mut self, place: usize) -> Result<Completed, Failure> {
        loop {
            if let Some(answer) = self.early.remove(&place) {
                return answer;
            }
            match self.receiver.blocking_recv() {
                Some((at, answer)) => drop(self.early.insert(at, answer)),
                None => return Err(Failure::new(FailureCode::AgentWorkerLost, "no worker answered")),
            }
        }
    }
}

impl Bench {
    /// Compiles a component in a caged child; its tasks run in caged workers.
    ///
    /// # Errors
    /// The component cannot be compiled, or this machine cannot cage.
    pub async fn caged(component: &[u8], level: CageLevel, width: usize) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let compiler = Compiler::new(program.clone(), vec!["__compile".into()], level);
        let code = compiler.compile(component).await.map_err(|failure| explained(&failure))?;
        Ok(Self { kind: Kind::Caged { program, code: Arc::new(code), level }, width })
    }

    /// Compiles a component in this process; its tasks run in it too.
    ///
    /// # Errors
    /// The component cannot be compiled.
    pub fn local(component: &[u8], backend: Backend, width: usize) -> Result<Self> {
        let kernel = local::compile(component, backend).map_err(|failure| explained(&failure))?;
        Ok(Self { kind: Kind::Local(Arc::new(kernel)), width })
    }

    /// Runs tasks that read the same inputs. Dropping the answers ends what still runs.
    #[must_use]
    pub fn run(&self, tasks: Vec<Task>, inputs: &Inputs, counter: &Arc<Counter>) -> Answers {
        // A worker that is ahead waits: what is not yet asked for stays small.
        let (sender, receiver) = mpsc::channel(self.width * 2);
        let (tasks, next) = (Arc::new(tasks), Arc::new(AtomicUsize::new(0)));
        for _ in 0..self.width.min(tasks.len()) {
            let (tasks, next, sender) = (Arc::clone(&tasks), Arc::clone(&next), sender.clone());
            let (kind, inputs, counter) = (self.kind.clone(), inputs.clone(), Arc::clone(counter));
            tokio::spawn(async move {
                let mut seat = Seat { kind, worker: None };
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(place) else { return };
                    let answer = tokio::select! {
                        answer = seat.run(task, &inputs, &counter) => answer,
                        () = sender.closed() => return,
                    };
                    if sender.send((place, answer)).await.is_err() {
                        return;
                    }
                }
            });
        }
        Answers { receiver, early: BTreeMap::new() }
    }
}

/// One task at a time.
struct Seat {
    kind: Kind,
    worker: Option<Worker>,
}

impl Seat {
    async fn run(&mut self, task: &Task, inputs: &Inputs, counter: &Arc<Counter>) -> Result<Completed, Failure> {
        let outcome = match &self.kind {
            Kind::Local(kernel) => {
                let (kernel, task, inputs, counter) =
                    (Arc::clone(kernel), task.clone(), inputs.clone(), Arc::clone(counter));
                let work = move || local::run_shard(&kernel, &task, &inputs, |_| counter.add(1)).outcome;
                let lost = |_| Failure::new(FailureCode::AgentWorkerLost, "the kernel's thread ended");
                tokio::task::spawn_blocking(work).await.map_err(lost)?
            }
            Kind::Caged { program, code, level } => {
                let mut worker = match self.worker.take() {
                    Some(worker) => worker,
                    None => spawned(program, code, *level).await?,
                };
                let result = counted(&mut worker, task, inputs, counter).await?;
                self.worker = Some(worker);
                result
            }
        };
        outcome.completed()
    }
}

async fn spawned(program: &std::path::Path, code: &[u8], level: CageLevel) -> Result<Worker, WorkerError> {
    let mut worker = Worker::spawn(program, &["__worker".into()], level).await?;
    worker.load(code).await?;
    Ok(worker)
}

/// Runs a task and counts its units as they are done.
async fn counted(worker: &mut Worker, task: &Task, inputs: &Inputs, counter: &Counter) -> Result<Outcome, WorkerError> {
    let (tell, mut told) = watch::channel(0);
    let mut seen = 0;
    let running = worker.run(task, inputs, PATIENCE, &tell);
    tokio::pin!(running);
    let result = loop {
        tokio::select! {
            result = &mut running => break result?,
            Ok(()) = told.changed() => {
                let done = *told.borrow_and_update();
                counter.add(done.saturating_sub(seen));
                seen = done.max(seen);
            }
        }
    };
    counter.add(task.unit_count.saturating_sub(seen));
    Ok(result.outcome)
}

/// A failure with what helps.
fn explained(failure: &Failure) -> anyhow::Error {
    let help = match failure.code {
        FailureCode::AgentDeclined => {
            "; `forgepool doctor` says what is missing, --cage available runs with what there is (for components you trust)"
        }
        _ => "",
    };
    anyhow!("the component cannot be made ready: {} ({}){help}", failure.detail, failure.code)
}
