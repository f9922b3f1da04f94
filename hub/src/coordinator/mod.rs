//! The coordinator: one task that owns the pool. Select an event, apply it, perform the actions; nothing awaits
//! while state changes.

mod acceptance;
mod array;
mod arrays;
mod board;
mod errata;
mod evidence;
pub mod execution;
mod finish;
mod money;
mod perform;
mod repeat;
mod restore;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, JobId, LeaseId};
use forge_lifecycle::action::Action;
use forge_lifecycle::event::{Event, SessionId};
use forge_lifecycle::pool::{AgentView, Pool, Settings};
use forge_lifecycle::settle::SettlePolicy;
use forge_lifecycle::trial::{TrialId, TrialVerdict};
use forge_telemetry::Telemetry;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

pub use acceptance::accepted_of;
pub use board::{Board, Ended, JobInfo, LiveJob, Signed, Stamped};
pub use errata::Swept;
pub use evidence::{INDEX, Notary};
pub use finish::{decimal, waiting};
pub use money::over_budget;

use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::store::Store;
use crate::store::blobs::Blobs;
use errata::Settler;
use perform::Performer;

/// Where shards go. The links implement it; tests do too.
pub trait Fleet: Send + Sync + 'static {
    /// Gives a shard to a session; what becomes of it comes back as an event.
    fn dispatch(&self, session: SessionId, lease: LeaseId, task: Arc<Task>, deadline_ms: u64, trace: TraceContext);
    /// Takes a lease back.
    fn revoke(&self, session: SessionId, lease: LeaseId);
    /// Ends a session.
    fn dismiss(&self, session: SessionId);
}

/// News of an agent, for whoever tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is here.
    Joined(AgentId),
    /// Its standing moved.
    Moved(AgentId),
}

/// What the coordinator is asked.
#[derive(Debug)]
enum Command {
    /// A job on the board may start.
    Submit(Arc<LiveJob>),
    /// A job of the record goes on.
    Adopt(Box<restore::Restored>),
    /// Something happened.
    Event(Box<Event>),
    /// Who is there.
    Agents(oneshot::Sender<Vec<AgentView>>),
    /// Dispatch nothing more, and say when that is so.
    Stop(oneshot::Sender<()>),
}

/// What the coordinator needs of the rest of the hub.
#[derive(Clone)]
pub struct Surroundings {
    /// Records.
    pub store: Arc<dyn Store>,
    /// Large objects.
    pub blobs: Arc<Blobs>,
    /// Agents.
    pub fleet: Arc<dyn Fleet>,
    /// Jobs in hand.
    pub board: Arc<Board>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Takes spans.
    pub telemetry: Telemetry,
    /// Signs evidence.
    pub notary: Arc<dyn Notary>,
    /// Takes the verdicts on kernels.
    pub decided: mpsc::UnboundedSender<(TrialId, TrialVerdict)>,
    /// Kernels, for what their manifests say.
    pub registry: Arc<Registry>,
    /// When stakes settle.
    pub settle: SettlePolicy,
    /// Called when a job's result came into doubt.
    pub doubts: Arc<Notify>,
    /// Takes the news of agents.
    pub news: mpsc::UnboundedSender<News>,
}

/// A handle to the coordinator.
#[derive(Clone)]
pub struct Coordinator {
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
    fleet: Arc<dyn Fleet>,
    news: mpsc::UnboundedSender<News>,
    settler: Arc<Settler>,
    completions: TaskTracker,
}

impl core::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Coordinator").finish_non_exhaustive()
    }
}

/// The coordinator has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator has stopped")]
pub struct Stopped;

const COMMANDS_MAX: usize = 1024;

impl Coordinator {
    /// Restores unfinished jobs and starts the task, and the one that settles every so often.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(
        settings: Settings,
        around: Surroundings,
        sweep: Duration,
    ) -> Result<Self, crate::store::StoreError> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let settler = Arc::new(Settler::new(around.clone(), commands.downgrade()));
        let handle = Self {
            commands,
            board: Arc::clone(&around.board),
            fleet: Arc::clone(&around.fleet),
            news: around.news.clone(),
            settler,
            completions: TaskTracker::new(),
        };
        let restored = restore::unfinished(&around).await?;
        let pool = Pool::new(settings);
        let performer = Performer::new(around, handle.completions.clone(), handle.commands.downgrade());
        tokio::spawn(run(pool, performer, restored, receiver));
        let settler = Arc::clone(&handle.settler);
        handle.completions.spawn(async move { settler.attend(sweep).await });
        Ok(handle)
    }

    /// Settles what is due and begins every erratum run that waits, at once.
    ///
    /// # Errors
    /// What the store says.
    pub async fn sweep(&self) -> Result<Swept, crate::store::StoreError> {
        self.settler.sweep(true).await
    }

    /// Begins the erratum runs that are due, soon.
    pub fn doubt(&self) {
        self.settler.wake();
    }

    /// Ends a session.
    pub fn dismiss(&self, session: SessionId) {
        self.fleet.dismiss(session);
    }

    /// Passes news of an agent on to whoever tells its owner.
    pub fn tell(&self, news: News) {
        // Nobody listens any more while the hub stops.
        let _ = self.news.send(news);
    }

    /// The jobs in hand.
    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Starts a job that is on the board.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn submit(&self, job: Arc<LiveJob>) -> Result<(), Stopped> {
        self.commands.send(Command::Submit(job)).await.map_err(|_| Stopped)
    }

    /// Something happened.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn event(&self, event: Event) -> Result<(), Stopped> {
        self.commands.send(Command::Event(Box::new(event))).await.map_err(|_| Stopped)
    }

    /// Asks for a job's end; a job that is over already stays as it is.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn cancel(&self, job: JobId) -> Result<(), Stopped> {
        self.event(Event::CancelRequested { job }).await
    }

    /// Who is connected.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn agents(&self) -> Result<Vec<AgentView>, Stopped> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Agents(sender)).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Dispatches nothing more and waits until the ends in progress are durable.
    pub async fn stop(&self) {
        self.settler.stopping.cancel();
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Stop(sender)).await.is_ok() {
            drop(receiver.await);
        }
        self.completions.close();
        self.completions.wait().await;
    }
}

async fn run(
    mut pool: Pool,
    mut performer: Performer,
    restored: Vec<restore::Restored>,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut actions = Vec::new();
    for job in restored {
        performer.adopt(&job);
        pool.apply(crate::clock::unix_ms(), job.event, &mut actions);
        performer.perform(&mut actions);
    }
    loop {
        let now = crate::clock::unix_ms();
        let patience =
            pool.deadline().map_or(Duration::from_secs(3600), |at| Duration::from_millis(at.saturating_sub(now)));
        let command = tokio::select! {
            biased;
            command = commands.recv() => command,
            () = tokio::time::sleep(patience) => Some(Command::Event(Box::new(Event::Tick))),
        };
        let now = crate::clock::unix_ms();
        match command {
            None => break,
            Some(Command::Submit(job)) => {
                performer.take(&job);
                let (plan, project) = (Arc::clone(&job.info.plan), Arc::clone(&job.info.project));
                let event = Event::JobAccepted { job: job.info.job, plan, project };
                pool.apply(now, event, &mut actions);
            }
            Some(Command::Adopt(job)) => {
                performer.adopt(&job);
                pool.apply(now, job.event, &mut actions);
            }
            Some(Command::Event(event)) => pool.apply(now, *event, &mut actions),
            Some(Command::Agents(sender)) => drop(sender.send(pool.agents())),
            Some(Command::Stop(sender)) => {
                pool.apply(now, Event::ShutdownRequested, &mut actions);
                performer.perform(&mut actions);
                // Whoever asked no longer waits.
                let _ = sender.send(());
            }
        }
        performer.perform(&mut actions);
        // Events can arrive without pause; a tick that is due must not wait for silence.
        if pool.deadline().is_some_and(|at| at <= now) {
            pool.apply(crate::clock::unix_ms(), Event::Tick, &mut actions);
            performer.perform(&mut actions);
        }
    }
}

/// Moves actions out, keeping the buffer.
fn drain(actions: &mut Vec<Action>) -> impl Iterator<Item = Action> + '_ {
    actions.drain(..)
}
