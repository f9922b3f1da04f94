//! The audit log as it crosses the store's border.

use async_trait::async_trait;
use forge_lifecycle::trail::{Entry, Head, Row, Tip};

use super::{StoreError, Write};

/// A change of the audit log.
#[derive(Debug, Clone)]
pub enum TrailWrite {
    /// A row of its own.
    Row(Entry),
    /// A change together with the row that says so: both are durable, or neither. A change that found itself made already
    /// (an idempotency key seen before), or nothing to change, leaves no row here.
    With {
        /// The change.
        write: Write,
        /// What the row says.
        entry: Entry,
    },
    /// The hub signed where the log stood.
    Head(Head),
}

impl From<TrailWrite> for Write {
    fn from(write: TrailWrite) -> Self {
        Self::Trail(Box::new(write))
    }
}

impl Write {
    /// This change together with its row of the audit log; see [`TrailWrite::With`].
    #[must_use]
    pub fn audited(self, entry: Entry) -> Self {
        TrailWrite::With { write: self, entry }.into()
    }
}

/// Whose rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's: the operator's view.
    All,
    /// An organisation's.
    Organisation(String),
    /// A project's.
    Project(String),
}

impl Reach {
    /// Whether an entry is within reach.
    #[must_use]
    pub fn sees(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::Organisation(name) => entry.organisation == *name,
            Self::Project(name) => entry.project == *name,
        }
    }
}

impl core::fmt::Display for Reach {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Organisation(name) => write!(f, "organisation {name}"),
            Self::Project(name) => write!(f, "project {name}"),
        }
    }
}

/// Which rows; what is absent is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailFilter {
    /// Whose.
    pub reach: Reach,
    /// Older than this row.
    pub before: Option<u64>,
    /// Not before this time, ms since 1970.
    pub since_ms: Option<u64>,
    /// Not after this time, ms since 1970.
    pub until_ms: Option<u64>,
    /// Of this project.
    pub project: Option<String>,
    /// By this key.
    pub key: Option<String>,
    /// Method and route, exactly.
    pub action: Option<String>,
    /// With this trace id.
    pub trace_id: Option<String>,
}

impl TrailFilter {
    /// Every row within reach.
    #[must_use]
    pub fn of(reach: Reach) -> Self {
        Self {
            reach,
            before: None,
            since_ms: None,
            until_ms: None,
            project: None,
            key: None,
            action: None,
            trace_id: None,
        }
    }
}

/// Reading the audit log.
#[async_trait]
pub trait TrailStore {
    /// Where the log stands.
    async fn trail_tip(&self) -> Result<Tip, StoreError>;
    /// Rows after this one, in order, whoever's they are.
    async fn trail(&self, after: u64, limit: u32) -> Result<Vec<Row>, StoreError>;
    /// Rows that pass a filter, newest first.
    async fn trail_search(&self, filter: &TrailFilter, limit: u32) -> Result<Vec<Row>, StoreError>;
    /// Heads of rows from this one on, in the order of their rows.
    async fn trail_heads(&self, from: u64, limit: u32) -> Result<Vec<Head>, StoreError>;
    /// The head that is about the latest row.
    async fn trail_head(&self) -> Result<Option<Head>, StoreError>;
}
