//! Planning: contract and manifest to a plan, always the same.

use forge_contract::envelope::{Envelope, Target, VerifyMode};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{Manifest, PartSpec};
use forge_contract::seed::{RootSeed, StageKey};
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use serde::{Deserialize, Serialize};

/// A kernel that was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The component's digest.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Its manifest.
    pub manifest: Manifest,
}

/// What will be done, in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `name@version`.
    pub op: String,
    /// The component, pinned.
    pub component: Digest,
    /// Its size, bytes.
    pub component_bytes: u64,
    /// Profile name.
    pub profile: String,
    /// Canonical args, defaults filled in.
    pub args: String,
    /// Root of all randomness.
    pub root_seed: RootSeed,
    /// Identity of the result: component, profile, args, seed.
    pub replay_key: Digest,
    /// Stages in order.
    pub stages: Vec<StagePlan>,
    /// How results are checked.
    pub verify: VerifyMode,
    /// Where it may run.
    pub target: Target,
    /// How many agents.
    pub parallel: Parallel,
    /// Milliseconds from acceptance to the end; 0 is no limit.
    pub timeout_ms: u64,
    /// What it is expected to cost.
    pub quote: Quote,
}

/// How many agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parallel {
    /// At least; 0 is automatic.
    pub min_agents: u64,
    /// At the same time at most; 0 is automatic.
    pub max_agents: u64,
    /// Whether too few is a failure.
    pub strict: bool,
}

/// Expected cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Fuel.
    pub fuel: u64,
    /// Micro-credits.
    pub credits_micro: u64,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Name.
    pub name: String,
    /// Its key.
    pub key: StageKey,
    /// How it is cut into units.
    pub cut: Cut,
    /// Units.
    pub units: u64,
    /// Items of work: iterations, cells, elements.
    pub items: u64,
    /// Units of a full shard, a power of two.
    pub shard_units: u64,
    /// Shards.
    pub shards: u32,
    /// Limits of each unit.
    pub limits: UnitLimits,
    /// Parts of each fragment.
    pub parts: Vec<PartSpec>,
    /// What its units read.
    pub inputs: Vec<PlannedInput>,
    /// Fuel a full unit is expected to burn.
    pub fuel_expected: u64,
}

/// An input of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInput {
    /// The name the kernel opens it by.
    pub name: String,
    /// Where it comes from.
    pub source: PlannedSource,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedSource {
    /// Stored content that an argument names.
    Content {
        /// Content address.
        digest: Digest,
        /// Size, filled in by [`Plan::resolve`].
        bytes: Option<u64>,
        /// The argument.
        argument: String,
    },
    /// The folded fragment of an earlier stage.
    Stage {
        /// Its index in the plan.
        index: u32,
    },
}

impl Plan {
    /// The plan's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(b"")
    }

    /// Fills in the sizes of stored inputs.
    ///
    /// # Errors
    /// `request.not_found` at the argument whose content is not stored.
    pub fn resolve(&mut self, size_of: impl Fn(&Digest) -> Option<u64>) -> Result<(), Failure> {
        let _ = size_of;
        Ok(())
    }

    /// The task of one shard; `None` where there is no such shard.
    #[must_use]
    pub fn task(&self, job: JobId, stage: u32, shard: u32, inputs: Vec<InputRef>) -> Option<Task> {
        let _ = (job, stage, shard, inputs);
        None
    }
}

/// Plans a contract on a kernel. The same input gives the same plan, whoever is connected.
///
/// # Errors
/// `request.unknown_op`, `request.arguments` with a pointer below `/args`.
pub fn plan(envelope: &Envelope, kernel: &Kernel) -> Result<Plan, Failure> {
    let _ = (envelope, kernel);
    Err(Failure::new(FailureCode::RequestUnknownOp, "no planner"))
}
