//! The books as they cross the store's border: what is agreed for a job, what was posted, what was used.

use async_trait::async_trait;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::books::budget::{Budget, OverBudget, Spending};
use forge_lifecycle::books::price::Charge;
use forge_lifecycle::books::{Account, BooksError, Kind, Transaction};
use forge_lifecycle::ledger::Tariff;

use super::StoreError;

impl From<BooksError> for StoreError {
    fn from(error: BooksError) -> Self {
        tracing::error!(%error, "a transaction cannot be made");
        Self::Corrupt { what: "amount" }
    }
}

/// What is agreed for a job at its acceptance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCharge {
    /// `name@version`.
    pub kernel: String,
    /// `billable` or `test`.
    pub mode: &'static str,
    /// What was agreed.
    pub tariff: Tariff,
    /// What is held until its end, micro-credits; 0 for a job in `test`.
    pub hold_micro: u64,
    /// What its project may spend; checked together with the acceptance.
    pub budget: Option<Budget>,
}

/// What was agreed for a job that goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What was agreed.
    pub tariff: Tariff,
    /// What is held until its end, micro-credits; `None` where the job is older than the books.
    pub held_micro: Option<u64>,
}

/// A job's end in money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What it used and costs. Of a job that is charged to nobody, what it used.
    pub charge: Charge,
    /// The same, micro-euros.
    pub eur_micro: u64,
    /// What is posted.
    pub transaction: Transaction,
    /// A finished job that turned out to have cost less.
    pub correction: Option<Corrected>,
}

/// A finished job that a run corrected, and what it should have cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// The job.
    pub job: JobId,
    /// The run.
    pub run: JobId,
    /// What it costs now, micro-credits; what was charged beyond that is given back.
    pub fair_micro: u64,
}

/// A change of the books from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BooksWrite {
    /// A project gets credits.
    Grant {
        /// The project.
        project: String,
        /// Micro-credits.
        micro: u64,
        /// The payment's own number: the same one again changes nothing.
        reference: String,
    },
    /// A provider was paid.
    Payout {
        /// The agent.
        agent: AgentId,
        /// Micro-credits.
        micro: u64,
        /// The payment's own number: the same one again changes nothing.
        reference: String,
    },
    /// More is set aside for a job that burns more than was expected. Checked against its project's budget.
    Raise {
        /// The job.
        job: JobId,
        /// Micro-credits.
        micro: u64,
    },
    /// A project may spend this much.
    Budget {
        /// The project.
        project: String,
        /// The budget; `None` for no limit.
        budget: Option<Budget>,
    },
}

/// What a change of the books gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BooksWritten {
    /// Posted under this number.
    Posted(u64),
    /// The same reference and content were posted before, under this number.
    Existing(u64),
    /// The reference stands for something else, posted under this number; nothing was written.
    Mismatch(u64),
    /// There is less to pay out, micro-credits; nothing was written.
    Short(u64),
    /// There is no such project, agent or running job.
    Nobody,
    /// `Accept`, `Raise`: the project cannot afford the job; nothing was written.
    OverBudget(OverBudget),
}

/// A transaction in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRow {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// The transaction, canonical JSON.
    pub body: String,
    /// Its digest.
    pub digest: Digest,
    /// The link before it.
    pub previous: Digest,
    /// Its link.
    pub link: Digest,
}

impl TransactionRow {
    /// The transaction.
    ///
    /// # Errors
    /// `Corrupt` where it is not what was written.
    pub fn transaction(&self) -> Result<Transaction, StoreError> {
        serde_json::from_str(&self.body).map_err(|_| StoreError::Corrupt { what: "transaction" })
    }
}

/// Which transactions to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactionQuery<'a> {
    /// Only those of this project.
    pub project: Option<&'a str>,
    /// Only those about this job.
    pub job: Option<JobId>,
    /// Only those of this kind.
    pub kind: Option<Kind>,
    /// Only those after this number.
    pub after: u64,
    /// Most rows to give.
    pub limit: u32,
}

/// A line of the chain as somebody may see it: the transaction only where it is of the project asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRow {
    /// Its number.
    pub seq: u64,
    /// The transaction's digest.
    pub digest: Digest,
    /// The transaction, canonical JSON.
    pub body: Option<String>,
}

/// What was used on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The project.
    pub project: String,
    /// Days since 1970, UTC.
    pub day: u64,
    /// `name@version`.
    pub kernel: String,
    /// `billable` or `test`.
    pub mode: String,
    /// Jobs that ended.
    pub jobs: u64,
    /// Verified fuel.
    pub fuel: u64,
    /// Fuel of answers that only confirmed others.
    pub check_fuel: u64,
    /// What it cost, or would have cost in `test`, micro-credits; below 0 where corrections gave back more.
    pub credits_micro: i64,
    /// What of that was charged, micro-credits.
    pub charged_micro: i64,
    /// What it cost, micro-euros.
    pub eur_micro: i64,
}

/// Which days of usage to read.
#[derive(Clone, Copy, Debug)]
pub struct UsageQuery<'a> {
    /// Only this project's.
    pub project: Option<&'a str>,
    /// The first day, days since 1970.
    pub from: u64,
    /// The last day.
    pub until: u64,
    /// Rows to leave out.
    pub offset: u64,
    /// Most rows to give.
    pub limit: u32,
}

/// What an agent earned and was paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayRow {
    /// Who.
    pub agent: AgentId,
    /// The project it was enrolled in.
    pub project: String,
    /// Who it belongs to, where somebody was named.
    pub provider: Option<String>,
    /// Not settled yet, micro-credits.
    pub held_micro: u64,
    /// Settled and not paid, micro-credits.
    pub payable_micro: u64,
    /// Paid, micro-credits.
    pub paid_micro: u64,
    /// Lost, micro-credits.
    pub forfeited_micro: u64,
}

/// What a project owes or has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Its account's balance, micro-credits; negative where it owes.
    pub balance_micro: i64,
    /// Its budget.
    pub budget: Option<Budget>,
    /// What counts against that.
    pub spending: Spending,
    /// Charged since the time asked for, micro-credits.
    pub charged_micro: u64,
}

/// The balance of all accounts of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceRow {
    /// The account.
    pub account: Account,
    /// Micro-credits.
    pub micro: i64,
}

/// The books, read.
#[async_trait]
pub trait BooksStore: Send + Sync + 'static {
    /// Transactions in the order in which they were posted.
    async fn transactions(&self, query: TransactionQuery<'_>) -> Result<Vec<TransactionRow>, StoreError>;
    /// The chain after number `after`; bodies are shown of those of this project, or of all where none is named.
    async fn chain(
        &self,
        project: Option<&str>,
        after: u64,
        until: u64,
        limit: u32,
    ) -> Result<Vec<LinkRow>, StoreError>;
    /// Number and link of the newest transaction; 0 and zeros where there is none.
    async fn chain_head(&self) -> Result<(u64, Digest), StoreError>;
    /// Usage by day, project, kernel and mode, in that order.
    async fn usage(&self, query: UsageQuery<'_>) -> Result<Vec<UsageRow>, StoreError>;
    /// What a project has and spent; `since` is for [`Position::charged_micro`]. `None` where there is no such project.
    async fn position(&self, project: &str, since_ms: u64, now_ms: u64) -> Result<Option<Position>, StoreError>;
    /// What agents earned, by id after `after`; only those enrolled in this project where one is named.
    async fn pay(&self, project: Option<&str>, after: Option<AgentId>, limit: u32) -> Result<Vec<PayRow>, StoreError>;
    /// Balances of accounts that are not 0, by name after `after`.
    async fn balances(&self, after: Option<&str>, limit: u32) -> Result<Vec<BalanceRow>, StoreError>;
    /// What a job was charged and not given back, micro-credits; `None` for one without a charge.
    async fn charged(&self, job: JobId) -> Result<Option<u64>, StoreError>;
}
