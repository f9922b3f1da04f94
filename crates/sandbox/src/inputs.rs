//! The bytes that units may read.

use core::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forge_contract::duty::{Duty, FoundRef};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode};
use serde::{Deserialize, Serialize};

/// Inputs of a stage, by the names the task declares. Cheap to clone.
///
/// Shape: in the order of `Task::inputs`. Digests were checked where the bytes arrived; they are kept so that a worker
/// is sent each input once.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    held: Vec<Input>,
    found: Option<(Digest, Bytes)>,
}

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    /// The name the kernel opens it by.
    pub name: String,
    /// Content address.
    pub digest: Digest,
    /// Size, bytes.
    pub bytes: u64,
    pub(crate) content: Content,
}

/// Where an input's bytes are.
#[derive(Clone)]
pub(crate) enum Content {
    /// Here, all of them.
    Held(Bytes),
    /// With the parent of a worker, which is asked for what is read.
    Asked(Arc<dyn Reads>),
    /// With somebody who gives workers what they ask for.
    Supplied(Arc<dyn Supply>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held(_) => "Held",
            Self::Asked(_) => "Asked",
            Self::Supplied(_) => "Supplied",
        })
    }
}

/// Reads an input whose bytes are elsewhere; blocks until they are here.
pub(crate) trait Reads: Send + Sync {
    /// These bytes, which the input has.
    fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, Failure>;
}

/// What a worker wants of an input, and what it will want next as far as its reads so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The first byte.
    pub offset: u64,
    /// How many; at least one.
    pub bytes: u64,
    /// From one read to the next, bytes.
    pub stride: u64,
    /// Reads expected after this one, each of so many bytes and so far behind the one before.
    pub steps: u32,
}

/// A piece of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Gives workers pieces of a large input, verified.
#[async_trait]
pub trait Supply: Send + Sync {
    /// Pieces, of which one holds at least the first byte wanted. The others are what is at hand of what comes next.
    ///
    /// # Errors
    /// `agent.fetch` where it cannot be had: the shard fails with it.
    async fn pieces(&self, want: Want) -> Result<Vec<Piece>, Failure>;
}

impl Input {
    /// These bytes, which the input has, where they lie; blocks where they are elsewhere.
    pub(crate) fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, Failure> {
        match &self.content {
            Content::Held(held) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let wanted = held.get(from..from.saturating_add(bytes));
                wanted.map(|wanted| held.slice_ref(wanted)).ok_or_else(|| missing(&self.name))
            }
            Content::Asked(parent) => parent.read(offset, bytes),
            Content::Supplied(_) => Err(Failure::new(
                FailureCode::AgentFetch,
                "an input that is supplied to workers is read by workers alone",
            )),
        }
    }
}

impl Inputs {
    /// No inputs.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an input whose bytes are known to have the digest of `reference`.
    pub fn add(&mut self, reference: &InputRef, bytes: Bytes) {
        let size = bytes.len() as u64;
        self.push(reference, size, Content::Held(bytes));
    }

    /// Adds an input whose bytes workers ask for as they read it.
    pub fn supply(&mut self, reference: &InputRef, supply: Arc<dyn Supply>) {
        self.push(reference, reference.bytes, Content::Supplied(supply));
    }

    /// Adds an input whose bytes the parent is asked for.
    pub(crate) fn ask(&mut self, reference: &InputRef, parent: Arc<dyn Reads>) {
        self.push(reference, reference.bytes, Content::Asked(parent));
    }

    fn push(&mut self, reference: &InputRef, bytes: u64, content: Content) {
        let (name, digest) = (reference.name.clone(), reference.digest);
        self.held.push(Input { name, digest, bytes, content });
    }

    /// Keeps the fragment that a check looks at, whose bytes are known to have the digest of `reference`. No unit can
    /// open it: it is an argument of the check.
    pub fn set_found(&mut self, reference: &FoundRef, bytes: Bytes) {
        self.found = Some((reference.digest, bytes));
    }

    /// What every worker that runs the task must be sent whole, by content.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (&Digest, &Bytes)> {
        let found = self.found.as_ref().map(|(digest, bytes)| (digest, bytes));
        let held = self.held.iter().filter_map(|input| match &input.content {
            Content::Held(bytes) => Some((&input.digest, bytes)),
            Content::Asked(_) | Content::Supplied(_) => None,
        });
        held.chain(found)
    }

    /// What a worker that runs the task asks for, by content, with the size.
    pub(crate) fn supplied(&self) -> impl Iterator<Item = (&Digest, u64, &Arc<dyn Supply>)> {
        self.held.iter().filter_map(|input| match &input.content {
            Content::Supplied(supply) => Some((&input.digest, input.bytes, supply)),
            Content::Held(_) | Content::Asked(_) => None,
        })
    }
    /// The fragment that a check looks at.
    ///
    /// # Errors
    /// `agent.fetch` where it is missing or another.
    pub fn found(&self, reference: &FoundRef) -> Result<&Bytes, Failure> {
        let fits = |found: &&(Digest, Bytes)| found.0 == reference.digest && found.1.len() as u64 == reference.bytes;
        self.found
            .as_ref()
            .filter(fits)
            .map(|(_, bytes)| bytes)
            .ok_or_else(|| Failure::new(FailureCode::AgentFetch, "the fragment to check is not the one the task names"))
    }

    /// The inputs, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Input] {
        &self.held
    }

    /// Whether these are the inputs that `task` declares: same names in the same order, same digests and sizes, and the
    /// fragment to check where it asks for that.
    ///
    /// # Errors
    /// `agent.fetch` with the first that is missing or another.
    pub fn fit(&self, task: &Task) -> Result<(), Failure> {
        let same = |(declared, held): (&InputRef, &Input)| {
            declared.name == held.name && declared.digest == held.digest && declared.bytes == held.bytes
        };
        let wrong = match self.held.len() == task.inputs.len() {
            true => task.inputs.iter().zip(&self.held).find(|pair| !same(*pair)).map(|(declared, _)| declared),
            false => task.inputs.get(self.held.len()).or(task.inputs.first()),
        };
        match (wrong, self.held.len() == task.inputs.len()) {
            (None, true) => match &task.duty {
                Duty::Compute => Ok(()),
                Duty::Check(examination) => self.found(&examination.found).map(drop),
            },
            (Some(declared), _) => Err(missing(&declared.name)),
            (None, false) => Err(missing("that was never declared")),
        }
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(FailureCode::AgentFetch, format!("the input '{name}' is not the one the task declares"))
}
