//! What the hub remembers: a trait, its SQLite backend, and content-addressed blobs on disk.
//!
//! Writes are a closed set submitted to one queue. They become durable in the order of submission, many in one
//! transaction; whoever needs to know awaits the acknowledgement. Reads see what is committed.

pub mod blobs;
pub mod books;
pub mod data;
mod rows;
pub mod settlement;
mod source;
pub mod sqlite;
#[cfg(test)]
pub mod suite;
pub mod tenancy;
pub mod trail;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::action::Forgotten;
use forge_lifecycle::event::Membership;
use forge_lifecycle::settle::SettlePolicy;
use tokio::sync::oneshot;

use blobs::Blobs;
use books::{BooksStore, BooksWrite, BooksWritten};
use data::{DataStore, DataWrite, DataWritten};
pub use rows::{
    AcceptedRow, AgentRow, ArtifactRow, AttemptRow, BlobRow, ErratumOf, FinishedJob, JobRow, KernelRow, KernelState,
    LedgerLine, NewJob, Page, Phase, PlannedRow, RejectedRequest, RestoredJob, Standing,
};
pub use settlement::{AgentEvent, AgentEventKind, ErratumEnd, NewErratum, NewStake};
use settlement::{AgentRecord, DoubtfulJob, ErratumRow, StakeRow};
pub use source::Source;
pub use tenancy::{Exceeded, TenancyStore, TenancyWrite};
pub use trail::{TrailStore, TrailWrite};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A newer program has written the database.
    #[error(
        "the database has schema {found}, this program knows up to {known}: it was written by a newer one. Start that one, \
         or restore the backup that was taken before it was installed"
    )]
    Newer {
        /// The migration that is not known here.
        found: i64,
        /// The last one that is.
        known: i64,
    },
    /// A blob could not be read or written.
    #[error("blob: {0}")]
    Blob(#[from] blobs::BlobError),
    /// A stored row is not what was written.
    #[error("stored {what} is unreadable")]
    Corrupt {
        /// Which row or column.
        what: &'static str,
    },
    /// A kernel's name and version are taken by other bytes.
    #[error("{label} is already {existing}; a published version never changes")]
    KernelTaken {
        /// `name@version`.
        label: String,
        /// Digest it is pinned to.
        existing: Digest,
    },
    /// The writer has stopped; nothing more becomes durable.
    #[error("the store is closed")]
    Closed,
}

/// One change. Each is applied whole or not at all.
#[derive(Debug, Clone)]
pub enum Write {
    /// Organisations, members, projects, keys.
    Tenancy(Box<TenancyWrite>),
    /// A job, with its idempotency key where the client gave one. Not where its project has as many jobs as it may;
    /// an idempotency key that is known comes first.
    Accept(Box<NewJob>),
    /// A request that was refused, kept as a failed job.
    Reject(Box<RejectedRequest>),
    /// An accepted shard: what a restart continues from.
    Accepted(Box<AcceptedRow>),
    /// An attempt that ended.
    Attempt(Box<AttemptRow>),
    /// Attempts of a stage from this shard on have another status than was written.
    Restate {
        /// The job.
        job: JobId,
        /// Index of the stage.
        stage: u32,
        /// Index of the first such shard.
        shard: u32,
        /// The status they had; those with another one stay.
        from: &'static str,
        /// The status they have.
        to: &'static str,
    },
    /// A job's end: its answer, artifacts and ledger line in one.
    Finish(Box<FinishedJob>),
    /// A small object.
    Object(Vec<u8>),
    /// A project has sent this content, which is durable on disk; nothing where it had before. Not where it would take
    /// more room than the project may.
    Blob {
        /// The project.
        project: String,
        /// Content address.
        digest: Digest,
        /// Size, bytes.
        bytes: u64,
    },
    /// A kernel. Nothing where the same bytes are there and not refused; [`StoreError::KernelTaken`] where its label is
    /// taken by other bytes. A refused one gives way.
    Kernel(Box<KernelRow>),
    /// What became of a kernel.
    KernelStanding {
        /// Its component: the label alone could have been given away.
        digest: Digest,
        /// What became of it.
        standing: Box<Standing>,
    },
    /// An enrolment token.
    EnrolToken {
        /// BLAKE3 of its secret.
        hash: Digest,
        /// The project it was made in.
        project: String,
        /// When it stops working, ms since 1970.
        expires_ms: u64,
        /// Whether who enrols with it is a verifier.
        verifier: bool,
        /// The provider who enrols with it; who names none is its own.
        provider: Option<String>,
        /// The project whose work alone it will do.
        reserved: Option<String>,
    },
    /// An agent presents a token; single use.
    Redeem {
        /// BLAKE3 of the secret presented.
        hash: Digest,
        /// The agent's public key.
        public_key: [u8; 32],
    },
    /// An agent was seen, or left.
    AgentState {
        /// Who.
        agent: AgentId,
        /// `connected`, `draining`, `gone`.
        state: &'static str,
        /// What it said of itself, JSON; unchanged where absent.
        capability: Option<String>,
    },
    /// Shards were accepted from agents, which settles what they staked long before.
    Clean {
        /// Who, and how many.
        shards: Vec<(AgentId, u64)>,
        /// When stakes settle.
        settle: SettlePolicy,
    },
    /// Whatever is due settles, but for agents that are quarantined.
    Settle {
        /// When stakes settle.
        policy: SettlePolicy,
        /// Now, ms since 1970.
        now_ms: u64,
    },
    /// Accepted shards count as never accepted, and so does every shard of later stages.
    Forget(Box<Forgotten>),
    /// An agent gets no more work. Where it was refuted it loses what it holds, and what it did is doubted.
    Quarantine {
        /// Who.
        agent: AgentId,
        /// Why.
        code: forge_contract::FailureCode,
        /// The job that showed it.
        job: JobId,
    },
    /// A quarantine is lifted.
    Readmit {
        /// Whose.
        agent: AgentId,
    },
    /// An agent is taken out for good, with what it holds.
    Remove {
        /// Who.
        agent: AgentId,
    },
    /// Something happened to an agent.
    AgentEvent(Box<AgentEvent>),
    /// An erratum run begins, from what the job it is about accepted.
    BeginErratum(Box<NewErratum>),
    /// Nothing of a job rested on the agents it was doubted for.
    VoidErrata {
        /// The job.
        job: JobId,
    },
    /// The audit log.
    Trail(Box<TrailWrite>),
    /// What projects keep: values, arrays, content.
    Data(Box<DataWrite>),
    /// A change of the books from outside.
    Books(Box<BooksWrite>),
    /// Nothing; its acknowledgement says that everything before it is durable.
    Barrier,
    /// Takes a block of lease numbers that no earlier process of this hub has used.
    ReserveLeases,
}

/// What a change gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Done.
    Done,
    /// `Accept`: the same idempotency key and body were seen before; that job stands.
    Existing(JobId),
    /// `Accept`: the same idempotency key with another body; nothing was written.
    Mismatch(JobId),
    /// `Redeem`: whether the token was good.
    Redeemed(bool),
    /// `ReserveLeases`: the first number of the block.
    FirstLease(u64),
    /// `Settle`: how many stakes did.
    Settled(u64),
    /// `Accept`, `Blob`, `Kernel`: the project may not; nothing was written.
    Exceeded(Exceeded),
    /// `Readmit`, `Remove`, `BeginErratum`, `Tenancy`: whether there was anything to change.
    Applied(bool),
    /// `Data`; `Finish` where it could not leave the arrays it was to leave.
    Data(DataWritten),
    /// `Books`, and `Accept` where the project cannot afford the job.
    Books(Box<BooksWritten>),
}

/// Resolves when a change is durable.
#[derive(Debug)]
pub struct Ack(oneshot::Receiver<Result<Written, StoreError>>);

impl Ack {
    /// An acknowledgement and the end that gives it.
    #[must_use]
    pub fn pair() -> (oneshot::Sender<Result<Written, StoreError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// One that is given already.
    #[must_use]
    pub fn given(written: Written) -> Self {
        let (sender, ack) = Self::pair();
        drop(sender.send(Ok(written)));
        ack
    }
}

impl Future for Ack {
    type Output = Result<Written, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|given| given.unwrap_or(Err(StoreError::Closed)))
    }
}

/// The hub's memory. Every backend passes the same suite.
#[async_trait]
pub trait Store: BooksStore + DataStore + TenancyStore + TrailStore {
    /// Queues a change. Order: changes become durable in the order of submission. Never blocks.
    fn submit(&self, write: Write) -> Ack;

    /// A job of this project.
    async fn job(&self, project: &str, job: JobId) -> Result<Option<JobRow>, StoreError>;
    /// A project's jobs, newest first, older than `before`.
    async fn jobs(
        &self,
        project: &str,
        before: Option<JobId>,
        phase: Option<Phase>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StoreError>;
    /// Jobs without an end, oldest first, without their shards.
    async fn unfinished(&self) -> Result<Vec<RestoredJob>, StoreError>;
    /// The accepted shards of a job in (stage, shard) order.
    async fn accepted(&self, job: JobId) -> Result<Vec<AcceptedRow>, StoreError>;
    /// The bodies of accepted shards from row `offset`, in (stage, shard) order, without their fragments.
    async fn accepted_bodies(&self, job: JobId, page: Page) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Contract and plan of a job of this project; `None` for a request that was refused.
    async fn planned(&self, project: &str, job: JobId) -> Result<Option<PlannedRow>, StoreError>;
    /// Attempts of a job from row `offset`, in (stage, shard, lease) order.
    async fn attempts(&self, job: JobId, page: Page) -> Result<Vec<AttemptRow>, StoreError>;
    /// How many attempts of a job are recorded.
    async fn attempts_count(&self, job: JobId) -> Result<u64, StoreError>;
    /// Artifacts of a job in their order.
    async fn artifacts(&self, job: JobId) -> Result<Vec<ArtifactRow>, StoreError>;
    /// A small object by content; verified.
    async fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;
    /// Content of this project.
    async fn blob(&self, project: &str, digest: &Digest) -> Result<Option<BlobRow>, StoreError>;
    /// A project's content, newest first, older than the one `before`.
    async fn blobs(&self, project: &str, before: Option<&Digest>, limit: u32) -> Result<Vec<BlobRow>, StoreError>;
    /// The public key of an enrolled agent.
    async fn agent_key(&self, agent: AgentId) -> Result<Option<[u8; 32]>, StoreError>;
    /// What is known of an enrolled agent; nothing good of another.
    async fn membership(&self, agent: AgentId) -> Result<Membership, StoreError>;
    /// Every enrolled agent, by id.
    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError>;
    /// An enrolled agent with what it earned and its latest events, newest first.
    async fn agent_record(&self, agent: AgentId, events: u32) -> Result<Option<AgentRecord>, StoreError>;
    /// What of a finished job rests on whom, by agent.
    async fn stakes(&self, job: JobId) -> Result<Vec<StakeRow>, StoreError>;
    /// The doubts about a job in the order in which they were noted.
    async fn errata(&self, job: JobId) -> Result<Vec<ErratumRow>, StoreError>;
    /// Jobs with doubts that are due by now and of which no run is under way, oldest doubt first.
    async fn doubtful(&self, now_ms: u64) -> Result<Vec<DoubtfulJob>, StoreError>;
    /// What a job was to do, whoever's it is; `None` for a request that was refused.
    async fn origin(&self, job: JobId) -> Result<Option<RestoredJob>, StoreError>;
    /// Every kernel, by name and version.
    async fn kernels(&self) -> Result<Vec<KernelRow>, StoreError>;
    /// The ledger from its start.
    async fn ledger(&self, page: Page) -> Result<Vec<LedgerLine>, StoreError>;
    /// Whether the database answers.
    async fn ready(&self) -> Result<(), StoreError>;
    /// Finishes what is queued and closes.
    async fn close(&self);
}

/// Submits a change to what projects keep.
///
/// # Errors
/// What the store says.
pub async fn write_data(store: &dyn Store, write: DataWrite) -> Result<DataWritten, StoreError> {
    match store.submit(Write::Data(Box::new(write))).await? {
        Written::Data(written) => Ok(written),
        _ => Err(StoreError::Corrupt { what: "answer to a change" }),
    }
}

/// An object by content, from its file or the database; verified.
///
/// # Errors
/// What the store says.
pub async fn read_object(store: &dyn Store, blobs: &Arc<Blobs>, digest: Digest) -> Result<Option<Bytes>, StoreError> {
    let files = Arc::clone(blobs);
    let read = tokio::task::spawn_blocking(move || files.get(&digest)).await.map_err(|_| StoreError::Closed)??;
    match read {
        Some(bytes) => Ok(Some(bytes.into())),
        None => Ok(store.object(&digest).await?.map(Bytes::from)),
    }
}
