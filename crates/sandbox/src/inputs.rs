//! The bytes that units may read.

use bytes::Bytes;
use forge_contract::duty::{Duty, FoundRef};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode};

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
    /// The bytes.
    pub bytes: Bytes,
}

impl Inputs {
    /// No inputs.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an input whose bytes are known to have the digest of `reference`.
    pub fn add(&mut self, reference: &InputRef, bytes: Bytes) {
        self.held.push(Input { name: reference.name.clone(), digest: reference.digest, bytes });
    }

    /// Keeps the fragment that a check looks at, whose bytes are known to have the digest of `reference`. No unit can
    /// open it: it is an argument of the check.
    pub fn set_found(&mut self, reference: &FoundRef, bytes: Bytes) {
        self.found = Some((reference.digest, bytes));
    }

    /// What every worker that runs the task must be sent, by content.
    pub fn contents(&self) -> impl Iterator<Item = (&Digest, &Bytes)> {
        let found = self.found.as_ref().map(|(digest, bytes)| (digest, bytes));
        self.held.iter().map(|input| (&input.digest, &input.bytes)).chain(found)
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
            declared.name == held.name && declared.digest == held.digest && declared.bytes == held.bytes.len() as u64
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
