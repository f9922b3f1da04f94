//! The contract as a client sends it. Parsing is validation: an [`Envelope`] that exists is acceptable in itself;
//! whether its operation exists and its arguments fit is the planner's to say.

mod field;
mod json;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::canon;
use crate::capability::Capability;
use crate::digest::Digest;
use crate::failure::{Failure, FailureCode};
use crate::limits::{AGENTS_MAX, REQUEST_BYTES_MAX, SHARDS_MAX, TIMEOUT_MS_MAX};
use field::{Object, choice};

pub use field::{escape, found, name, suggestion};
pub use json::read as read_json;
pub use schema::{PRINTABLE_PATTERN, contract as contract_schema, policy as policy_schema};

/// Longest explicit seed, characters.
pub const SEED_CHARS_MAX: usize = 1024;
/// Longest identifier of `ctx`, characters.
pub const LABEL_CHARS_MAX: usize = 256;
/// Longest `op.name`, characters.
pub const OP_NAME_CHARS_MAX: usize = 127;
/// Longest `op.profile`, characters.
pub const PROFILE_CHARS_MAX: usize = 63;

/// Members of a contract.
const ROOT: [&str; 6] = ["ctx", "op", "seed", "policy", "args", "artifacts"];
/// Members of `ctx`.
const CTX: [&str; 5] = ["job_id", "trace_id", "run_id", "stage_id", "billing"];
/// Members of `ctx.billing`.
const BILLING: [&str; 2] = ["mode", "reason"];
/// Members of `op`.
const OP: [&str; 3] = ["name", "version", "profile"];
/// Members of `seed`.
const SEED: [&str; 2] = ["mode", "value"];
/// Members of `policy`.
const POLICY: [&str; 10] = [
    "target",
    "min_agents",
    "max_agents",
    "timeout_ms",
    "verify",
    "shards",
    "strict_agents",
    "labels",
    "region",
    "arch",
];
/// Members of `artifacts`.
const ARTIFACTS: [&str; 4] = ["persist", "kv_namespace", "include", "vmem"];

/// A request to compute, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Who asks, in the client's own words. No part of the computation.
    pub ctx: Context,
    /// What to run.
    pub op: Operation,
    /// Where randomness comes from.
    pub seed: Seed,
    /// Cost, latency, trust and routing; never semantics.
    pub policy: Policy,
    /// The profile's arguments as given, defaults not yet filled in.
    pub args: Map<String, Value>,
    /// What to keep.
    pub artifacts: Artifacts,
    canonical: String,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The client's own label, echoed as `client_job_id`.
    pub job_id: Option<String>,
    /// For the client's tracing.
    pub trace_id: Option<String>,
    /// Studio's run.
    pub run_id: Option<String>,
    /// Studio's stage.
    pub stage_id: Option<String>,
    /// How it is billed.
    pub billing: Billing,
}

/// How a job is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billing {
    /// Whether it is charged.
    pub mode: BillingMode,
    /// What it is for.
    pub reason: BillingReason,
}

choice! {
    /// Whether a job is charged. Absent means `test`: nobody is charged by omission.
    BillingMode: default Test {
        /// Recorded and charged.
        Billable = "billable",
        /// Recorded, nothing charged.
        Test = "test",
    }
}

choice! {
    /// What a job is for.
    BillingReason: default Api {
        /// The client's own call.
        Api = "api",
        /// A run of Studio.
        StudioRun = "studio_run",
        /// An experiment.
        Lab = "lab",
        /// The platform itself.
        Internal = "internal",
    }
}

/// Which kernel and which profile of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Name.
    pub name: String,
    /// Version, from 1.
    pub version: u32,
    /// Profile.
    pub profile: String,
}

impl Operation {
    /// `name@version`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Where randomness comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// How the root is made.
    pub mode: SeedMode,
    /// The root itself (`explicit`, never empty), or what the derived root also depends on.
    pub value: Option<String>,
}

choice! {
    /// How the root seed is made.
    SeedMode: default Derived {
        /// The value is the root.
        Explicit = "explicit",
        /// The root is derived from op, component, args and the optional value.
        Derived = "derived",
    }
}

/// Cost, latency, trust and routing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Where it may run.
    pub target: Target,
    /// Agents wished for at least; 0 is automatic.
    pub min_agents: u64,
    /// Agents at the same time at most; 0 is automatic.
    pub max_agents: u64,
    /// Milliseconds from acceptance to the end; 0 is no limit.
    pub timeout_ms: u64,
    /// How results are checked. Absent means `spotcheck`.
    pub verify: VerifyMode,
    /// Number of shards wished for.
    pub shards: Option<u32>,
    /// Whether too few agents is a failure instead of a warning.
    pub strict_agents: bool,
    /// What agents must be beside that.
    pub requires: Requires,
}

/// What agents must be: the job never leaves those that are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requires {
    /// Labels they all have, sorted, each once; the region is one of them (`region=eu`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Their processor architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Whether they are reserved for the job's project. Set by the project's owner, not by a contract.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub reserved: bool,
}

impl Requires {
    /// Whether every agent will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.arch.is_none() && !self.reserved
    }

    /// What both ask for together; the other's architecture where it names one.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut labels: Vec<String> = self.labels.iter().chain(&other.labels).cloned().collect();
        labels.sort();
        labels.dedup();
        let arch = other.arch.clone().or_else(|| self.arch.clone());
        Self { labels, arch, reserved: self.reserved || other.reserved }
    }

    /// Whether an agent is what is asked for, but for what it is reserved for: that is not its own to say.
    #[must_use]
    pub fn met_by(&self, capability: &Capability) -> bool {
        let labelled = |label| capability.labels.binary_search(label).is_ok();
        self.labels.iter().all(labelled) && self.arch.as_ref().is_none_or(|arch| *arch == capability.arch)
    }
}

impl core::fmt::Display for Requires {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let arch = self.arch.iter().map(|arch| format!("arch={arch}"));
        let reserved = self.reserved.then(|| "a reservation for this project".to_owned());
        let all: Vec<String> = self.labels.iter().cloned().chain(arch).chain(reserved).collect();
        f.write_str(&all.join(", "))
    }
}

choice! {
    /// Where a job may run.
    Target: default Any {
        /// Processors only.
        Cpu = "cpu",
        /// Graphics processors only.
        Gpu = "gpu",
        /// Either.
        Any = "any",
    }
}

choice! {
    /// How results are checked.
    VerifyMode: default Spotcheck {
        /// Structural checks only.
        None = "none",
        /// A secret sample of shards runs twice.
        Spotcheck = "spotcheck",
        /// Every shard on two distinct agents, further ones on a mismatch.
        Quorum = "quorum",
        /// Every shard on two distinct agents at least.
        Full = "full",
    }
}

/// What to keep of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Whether artifacts outlive the answer.
    pub persist: bool,
    /// Where their references stand in KV.
    pub kv_namespace: String,
    /// Which ones.
    pub include: BTreeSet<ArtifactKind>,
    /// Which arrays of the result become the next version of which name.
    pub vmem: Option<ArrayTarget>,
}

/// Which arrays of a result are kept by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ArrayTarget {
    /// The only one, under this name.
    Only(String),
    /// Each of these parts of the result, under the name beside it.
    Parts(BTreeMap<String, String>),
}

impl Default for Artifacts {
    fn default() -> Self {
        Self {
            persist: true,
            kv_namespace: "jobs".into(),
            include: ArtifactKind::ALL.iter().copied().collect(),
            vmem: None,
        }
    }
}

choice! {
    /// An artifact a client may ask for.
    ArtifactKind: default ResultJson {
        /// The reduced result.
        ResultJson = "result_json",
        /// Who computed which shard.
        ExecutionsJson = "executions_json",
        /// What it took.
        MetricsJson = "metrics_json",
    }
}

impl Envelope {
    /// Reads a request body.
    ///
    /// # Errors
    /// `request.too_large`, `request.malformed` (no JSON, with the place), `request.schema` (a field breaks a rule),
    /// `request.conflict` (fields contradict each other), `request.arguments` (a number in `args` is out of range);
    /// each with a JSON pointer wherever one place is to blame.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        if body.len() > REQUEST_BYTES_MAX {
            let detail = format!("the body has {} bytes; at most {REQUEST_BYTES_MAX} are read", body.len());
            return Err(Failure::new(FailureCode::RequestTooLarge, detail));
        }
        Self::from_value(&json::read(body)?)
    }

    fn from_value(value: &Value) -> Result<Self, Failure> {
        let root = Object::new(value, "")?;
        root.only(&ROOT)?;
        let canonical = canon::json(value)
            .map_err(|e| Failure::new(FailureCode::RequestMalformed, format!("the body has no canonical form: {e}")))?;
        let envelope = Self {
            ctx: context(&root.object("ctx")?)?,
            op: operation(&root.object("op")?)?,
            seed: seed(&root.object("seed")?)?,
            policy: policy(&root.object("policy")?)?,
            args: root.object("args")?.map().clone(),
            artifacts: root.optional("artifacts")?.map_or_else(|| Ok(Artifacts::default()), |o| artifacts(&o))?,
            canonical,
        };
        envelope.policy.check()?;
        Ok(envelope)
    }

    /// The whole request as canonical JSON (RFC 8785), as the client sent it: no default is filled in.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The digest of the canonical request: what an idempotency key is compared by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::tagged("forgepool v1 envelope", self.canonical.as_bytes())
    }
}

fn context(ctx: &Object<'_>) -> Result<Context, Failure> {
    ctx.only(&CTX)?;
    let billing = match ctx.optional("billing")? {
        Some(billing) => {
            billing.only(&BILLING)?;
            Billing { mode: billing.choice("mode")?, reason: billing.choice("reason")? }
        }
        None => Billing::default(),
    };
    Ok(Context {
        job_id: ctx.label("job_id")?,
        trace_id: ctx.label("trace_id")?,
        run_id: ctx.label("run_id")?,
        stage_id: ctx.label("stage_id")?,
        billing,
    })
}

fn operation(op: &Object<'_>) -> Result<Operation, Failure> {
    op.only(&OP)?;
    Ok(Operation {
        name: op.required_text("name", OP_NAME_CHARS_MAX)?,
        version: op.required_integer("version", 1, u64::from(u32::MAX))?.try_into().unwrap_or(u32::MAX),
        profile: op.required_text("profile", PROFILE_CHARS_MAX)?,
    })
}

fn seed(seed: &Object<'_>) -> Result<Seed, Failure> {
    seed.only(&SEED)?;
    let mode: SeedMode = seed.required_choice("mode")?;
    let value = seed.text("value", SEED_CHARS_MAX)?;
    if mode == SeedMode::Explicit && value.as_deref().is_none_or(str::is_empty) {
        let found = if value.is_some() { "an empty one" } else { "none" };
        let detail = format!(
            "seed.value: mode \"explicit\" pins the root seed and needs a value of 1 to {SEED_CHARS_MAX} characters, found {found}; \
             give one, or use mode \"derived\""
        );
        return Err(Failure::new(FailureCode::RequestSchema, detail).at(seed.pointer("value")));
    }
    Ok(Seed { mode, value })
}

fn policy(policy: &Object<'_>) -> Result<Policy, Failure> {
    policy.only(&POLICY)?;
    let shards = policy.integer("shards", 1, SHARDS_MAX)?;
    Ok(Policy {
        target: policy.choice("target")?,
        min_agents: policy.integer("min_agents", 0, AGENTS_MAX)?.unwrap_or(0),
        max_agents: policy.integer("max_agents", 0, AGENTS_MAX)?.unwrap_or(0),
        timeout_ms: policy.integer("timeout_ms", 0, TIMEOUT_MS_MAX)?.unwrap_or(0),
        verify: policy.choice("verify")?,
        shards: shards.and_then(|n| u32::try_from(n).ok()),
        strict_agents: policy.flag("strict_agents")?.unwrap_or(false),
        requires: requires(policy)?,
    })
}

fn requires(policy: &Object<'_>) -> Result<Requires, Failure> {
    let mut labels = policy.labels("labels")?.unwrap_or_default();
    labels.extend(policy.word("region")?.map(|region| format!("region={region}")));
    labels.sort();
    labels.dedup();
    Ok(Requires { labels, arch: policy.word("arch")?, reserved: false })
}

fn artifacts(artifacts: &Object<'_>) -> Result<Artifacts, Failure> {
    artifacts.only(&ARTIFACTS)?;
    let default = Artifacts::default();
    let read = Artifacts {
        persist: artifacts.flag("persist")?.unwrap_or(default.persist),
        vmem: array_target(artifacts)?,
        kv_namespace: artifacts.word("kv_namespace")?.unwrap_or(default.kv_namespace),
        include: artifacts.choices("include")?.map_or(default.include, |list| list.into_iter().collect()),
    };
    if read.vmem.is_some() && !read.persist {
        let detail = "artifacts.vmem: an array that is kept by name is an artifact, and artifacts.persist is false; leave \
                      one of them out";
        return Err(Failure::new(FailureCode::RequestConflict, detail).at(artifacts.pointer("vmem")));
    }
    Ok(read)
}

fn array_target(artifacts: &Object<'_>) -> Result<Option<ArrayTarget>, Failure> {
    if !artifacts.map().get("vmem").is_some_and(Value::is_object) {
        return Ok(artifacts.word("vmem")?.map(ArrayTarget::Only));
    }
    let parts = artifacts.object("vmem")?;
    let name = |part: &String| Ok(parts.word(part)?.map(|name| (part.clone(), name)));
    let names = parts.map().keys().filter_map(|part| name(part).transpose()).collect::<Result<_, Failure>>()?;
    Ok(Some(ArrayTarget::Parts(names)))
}

impl Policy {
    fn check(&self) -> Result<(), Failure> {
        let conflict =
            |pointer: &str, detail: String| Err(Failure::new(FailureCode::RequestConflict, detail).at(pointer));
        if self.max_agents != 0 && self.min_agents > self.max_agents {
            let (min, max) = (self.min_agents, self.max_agents);
            return conflict(
                "/policy/min_agents",
                format!(
                    "policy.min_agents: {min} is more than policy.max_agents, {max}; lower the one or raise the other (0 is automatic)"
                ),
            );
        }
        if self.max_agents == 1 && matches!(self.verify, VerifyMode::Quorum | VerifyMode::Full) {
            let verify = self.verify;
            return conflict(
                "/policy/max_agents",
                format!(
                    "policy.max_agents: \"{verify}\" compares distinct agents and needs at least 2, found 1; use 0, 2 or more, or verify \"none\""
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
