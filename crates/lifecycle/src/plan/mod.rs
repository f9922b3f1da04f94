//! Planning: a contract and a kernel's manifest give a plan, always the same, whoever is connected.

mod arguments;
mod golden;
mod sizing;
mod split;

use std::collections::BTreeSet;

use forge_contract::canon::{self, Writer};
use forge_contract::duty::Duty;
use forge_contract::envelope::{ArrayTarget, Envelope, Requires, SeedMode, Target, VerifyMode};
use forge_contract::fragment::Fragment;
use forge_contract::limits::{INPUT_BYTES_MAX, UnitLimits};
use forge_contract::manifest::{InputSource, Manifest, PartKind, PartSpec, Profile, Stage};
use forge_contract::seed::{RootSeed, StageKey};
use forge_contract::stop::StopRule;
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::vmem::{Reference, ReferenceError};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::converge::{self, Convergence, Stopped, StoppedAt};
use crate::ledger::{Rates, credits_micro};

pub use crate::converge::PlannedStop;
pub use arguments::{SchemaError, check_schema};
pub use golden::golden_task;

/// Largest quote, fuel: what canonical JSON carries exactly.
const FUEL_QUOTED_MAX: u64 = (1 << 53) - 1;

/// A kernel that was admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The component's digest.
    pub digest: Digest,
    /// Its size, bytes.
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
    /// What agents must be beside that.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// How many agents.
    pub parallel: Parallel,
    /// Milliseconds from acceptance to the end; 0 is no limit.
    pub timeout_ms: u64,
    /// What its project adds; no part of what contract and manifest say.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
    /// What it is expected to cost.
    pub quote: Quote,
}

/// What a project adds to the contracts of its jobs: where they run, and what they may burn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What agents must be.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// Most fuel a job may burn: it fails where accepted shards burned more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_max: Option<u64>,
}

impl Terms {
    /// Whether they add nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requires.is_empty() && self.fuel_max.is_none()
    }
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
    /// Micro-credits, by the default price list.
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
    /// The rule that may end it before its last unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<PlannedStop>,
    /// Whether the kernel can check its units for much less than they cost: it exports `checks`, and a shard's
    /// fragment comes apart into those of its units.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub checks: bool,
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
        /// Size, bytes; filled in by [`Plan::resolve`].
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

impl StagePlan {
    /// How the stage ended; `None` where it has no stop rule.
    #[must_use]
    pub fn convergence(&self, stopped: Stopped) -> Option<Convergence> {
        let stop = self.stop.as_ref()?;
        Some(Convergence {
            stage: self.name.clone(),
            part: stop.part.clone(),
            rule: stop.rule,
            stopped_at: StoppedAt { unit: stopped.unit, items: self.items_of(0, stopped.unit) },
            reason: stopped.reason,
            measured: stopped.measured,
            checkpoints: stopped.checkpoints,
        })
    }

    /// First unit and number of units of a shard; `None` where there is no such shard.
    #[must_use]
    pub fn shard_run(&self, shard: u32) -> Option<(u64, u64)> {
        let first = u64::from(shard).checked_mul(self.shard_units)?;
        let left = self.units.checked_sub(first).filter(|left| *left > 0)?;
        Some((first, left.min(self.shard_units)))
    }

    /// Items of work in units `first .. first + count`.
    #[must_use]
    pub fn items_of(&self, first: u64, count: u64) -> u64 {
        match &self.cut {
            Cut::Items { total, unit } => {
                let start = first.saturating_mul(*unit).min(*total);
                first.saturating_add(count).saturating_mul(*unit).min(*total) - start
            }
            Cut::Tiles { .. } => {
                let slices = (first..first.saturating_add(count)).map_while(|unit| self.cut.slice(unit));
                slices.fold(0, |sum: u64, slice| sum.saturating_add(slice.items()))
            }
            Cut::Elements { .. } | Cut::Segments { .. } | Cut::Once => count,
        }
    }
}

impl Plan {
    /// What agents must be: by the contract, and by the project.
    #[must_use]
    pub fn asked(&self) -> Requires {
        self.requires.with(&self.terms.requires)
    }

    /// The plan's digest: of its canonical JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::tagged("forgepool v1 plan", self.canonical().as_bytes())
    }

    /// The plan as canonical JSON.
    #[must_use]
    pub fn canonical(&self) -> String {
        canon::json(self).unwrap_or_default()
    }

    /// What a job of this plan runs and reads, by content: the component and the stored inputs.
    #[must_use]
    pub fn content(&self) -> BTreeSet<Digest> {
        let sources = self.stages.iter().flat_map(|stage| &stage.inputs).map(|input| &input.source);
        let stored = sources.filter_map(|source| match source {
            PlannedSource::Content { digest, .. } => Some(*digest),
            PlannedSource::Stage { .. } => None,
        });
        stored.chain([self.component]).collect()
    }

    /// Shards of all stages.
    #[must_use]
    pub fn shards_total(&self) -> u64 {
        self.stages.iter().map(|stage| u64::from(stage.shards)).sum()
    }

    /// Units of all stages.
    #[must_use]
    pub fn units_total(&self) -> u64 {
        self.stages.iter().fold(0, |sum, stage| sum.saturating_add(stage.units))
    }

    /// Fills in the sizes of stored inputs.
    ///
    /// # Errors
    /// `request.not_found` at the argument whose content is not stored; `request.arguments` where it is too large.
    pub fn resolve(&mut self, size_of: impl Fn(&Digest) -> Option<u64>) -> Result<(), Failure> {
        for input in self.stages.iter_mut().flat_map(|stage| &mut stage.inputs) {
            if let PlannedSource::Content { digest, bytes, argument } = &mut input.source {
                let size = size_of(digest).ok_or_else(|| {
                    let detail = format!(
                        "args.{argument}: no content with the digest {digest} is stored in this project; upload it first with \
                         `forgepool blob put FILE`"
                    );
                    Failure::new(FailureCode::RequestNotFound, detail).at(arguments::pointer(argument))
                })?;
                if size > INPUT_BYTES_MAX {
                    let detail = format!(
                        "args.{argument}: an input has at most {INPUT_BYTES_MAX} bytes, the content {digest} has {size}"
                    );
                    return Err(Failure::new(FailureCode::RequestArguments, detail).at(arguments::pointer(argument)));
                }
                *bytes = Some(size);
            }
        }
        Ok(())
    }

    /// The arrays of the result by part, in the order in which they are shown.
    #[must_use]
    pub fn arrays(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for spec in self.stages.iter().flat_map(|stage| &stage.parts) {
            if spec.shown && spec.kind == PartKind::Tile && !names.contains(&spec.name.as_str()) {
                names.push(spec.name.as_str());
            }
        }
        names
    }

    /// Which part of the result becomes which array, as the contract asks.
    ///
    /// # Errors
    /// `request.conflict` at `/artifacts/vmem` where the result has no such array, or several and none is chosen.
    pub fn array_names(&self, target: Option<&ArrayTarget>) -> Result<Vec<(String, String)>, Failure> {
        let arrays = self.arrays();
        let refused = |pointer: &str, rule: &str| {
            let found = if arrays.is_empty() { "none".to_owned() } else { arrays.join(", ") };
            let (op, profile) = (&self.op, &self.profile);
            let detail = format!("artifacts.vmem: {rule}; the arrays in the result of {op} {profile} are: {found}");
            Failure::new(FailureCode::RequestConflict, detail).at(pointer)
        };
        match target {
            None => Ok(Vec::new()),
            Some(ArrayTarget::Only(name)) => match arrays.as_slice() {
                [only] => Ok(vec![((*only).to_owned(), name.clone())]),
                _ => Err(refused("/artifacts/vmem", "a name alone is for a result of one array, give {PART: NAME}")),
            },
            Some(ArrayTarget::Parts(names)) => {
                let unknown = names.keys().find(|part| !arrays.contains(&part.as_str()));
                match unknown {
                    Some(part) => Err(refused(
                        &format!("/artifacts/vmem/{}", part.replace('~', "~0").replace('/', "~1")),
                        "there is no such part",
                    )),
                    None => Ok(names.iter().map(|(part, name)| (part.clone(), name.clone())).collect()),
                }
            }
        }
    }

    /// The task of one shard; `None` where there is no such shard.
    #[must_use]
    pub fn task(&self, job: JobId, stage: u32, shard: u32, inputs: Vec<InputRef>) -> Option<Task> {
        let plan = self.stages.get(usize::try_from(stage).ok()?)?;
        let (first_unit, unit_count) = plan.shard_run(shard)?;
        Some(Task {
            job,
            stage_index: stage,
            shard,
            component: self.component,
            component_bytes: self.component_bytes,
            profile: self.profile.clone(),
            stage: plan.name.clone(),
            args: self.args.clone(),
            key: plan.key,
            cut: plan.cut.clone(),
            first_unit,
            unit_count,
            limits: plan.limits,
            parts: plan.parts.clone(),
            inputs,
            duty: Duty::Compute,
        })
    }
}

/// The identity of a result: what it is a function of, and nothing else.
#[must_use]
pub fn replay_key(component: &Digest, profile: &str, args: &str, root_seed: &RootSeed) -> Digest {
    let mut w = Writer::new();
    w.digest(component);
    w.str(profile);
    w.str(args);
    w.str(root_seed.as_str());
    Digest::tagged("forgepool v1 replay key", &w.into_bytes())
}

/// Plans a contract on a kernel.
///
/// Determinism: a pure function of its two arguments.
///
/// # Errors
/// `request.unknown_op` at `/op/...`; `request.arguments` with a pointer below `/args`.
pub fn plan(envelope: &Envelope, kernel: &Kernel) -> Result<Plan, Failure> {
    let profile = profile_of(envelope, kernel)?;
    // Before the schema speaks: a rule's own words say more than those of a schema.
    for stage in &profile.stages {
        stop_rule(stage, &Value::Object(envelope.args.clone()))?;
    }
    let args = arguments::complete(&profile.args, &pinned(profile, &envelope.args)?)?;
    let canonical = canon::json(&args).map_err(|e| {
        Failure::new(FailureCode::RequestArguments, format!("args have no canonical form: {e}")).at("/args")
    })?;
    let value = envelope.seed.value.as_deref();
    let root_seed = match envelope.seed.mode {
        SeedMode::Explicit => RootSeed::explicit(value.unwrap_or_default()),
        SeedMode::Derived => RootSeed::derived(&kernel.digest, &envelope.op.profile, &canonical, value),
    };
    let mut stages = Vec::with_capacity(profile.stages.len());
    for stage in &profile.stages {
        let planned = stage_plan(envelope, stage, &profile.stages, &args, &root_seed)?;
        let checks = kernel.manifest.checks && Fragment::is_separable(&stage.parts);
        stages.push(StagePlan { checks, ..planned });
    }
    let fuel = stages
        .iter()
        .fold(0u64, |sum, stage| sum.saturating_add(stage.units.saturating_mul(stage.fuel_expected)))
        .min(FUEL_QUOTED_MAX);
    Ok(Plan {
        op: kernel.manifest.label(),
        component: kernel.digest,
        component_bytes: kernel.bytes,
        profile: envelope.op.profile.clone(),
        replay_key: replay_key(&kernel.digest, &envelope.op.profile, &canonical, &root_seed),
        args: canonical,
        root_seed,
        stages,
        verify: envelope.policy.verify,
        target: envelope.policy.target,
        requires: envelope.policy.requires.clone(),
        parallel: Parallel {
            min_agents: envelope.policy.min_agents,
            max_agents: envelope.policy.max_agents,
            strict: envelope.policy.strict_agents,
        },
        timeout_ms: envelope.policy.timeout_ms,
        terms: Terms::default(),
        quote: Quote { fuel, credits_micro: credits_micro(&Rates::default(), fuel) },
    })
}

/// The arguments of a profile that name stored content, in the order of its stages, each once.
pub fn input_arguments(profile: &Profile) -> impl Iterator<Item = &str> {
    let inputs = profile.stages.iter().flat_map(|stage| &stage.inputs);
    let mut seen = BTreeSet::new();
    inputs.filter_map(move |input| match &input.from {
        InputSource::Argument(name) if seen.insert(name.as_str()) => Some(name.as_str()),
        _ => None,
    })
}

/// The arguments with the digest in the place of every array that is named: a result is a function of what it reads,
/// whatever that was called.
fn pinned(profile: &Profile, args: &Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let mut pinned = args.clone();
    for name in input_arguments(profile) {
        let Some(value) = pinned.get_mut(name).filter(|value| value.is_object()) else { continue };
        let digest = reference(name, value)?.digest.ok_or_else(|| {
            let detail = format!("args.{name}: an array given by name is planned once its digest is known");
            Failure::new(FailureCode::RequestArguments, detail).at(arguments::pointer(name))
        })?;
        *value = digest.to_string().into();
    }
    Ok(pinned)
}

/// An array that an argument names.
///
/// # Errors
/// `request.arguments` at the argument.
pub fn reference(argument: &str, value: &Value) -> Result<Reference, Failure> {
    Reference::parse(value).map_err(|error| {
        let detail = format!("args.{argument}: {error}");
        Failure::new(FailureCode::RequestArguments, detail).at(arguments::pointer(argument))
    })
}

fn profile_of<'k>(envelope: &Envelope, kernel: &'k Kernel) -> Result<&'k Profile, Failure> {
    let op = &envelope.op;
    if op.name != kernel.manifest.name || op.version != kernel.manifest.version {
        let detail = format!("op.name: '{}' is not the kernel given, '{}'", op.label(), kernel.manifest.label());
        return Err(Failure::new(FailureCode::RequestUnknownOp, detail).at("/op/name"));
    }
    kernel.manifest.profiles.get(&op.profile).ok_or_else(|| {
        let known: Vec<&str> = kernel.manifest.profiles.keys().map(String::as_str).collect();
        let detail = format!("op.profile: {} has no profile '{}'; it has {}", op.label(), op.profile, known.join(", "));
        Failure::new(FailureCode::RequestUnknownOp, detail).at("/op/profile")
    })
}

fn stage_plan(
    envelope: &Envelope,
    stage: &Stage,
    all: &[Stage],
    args: &Value,
    root: &RootSeed,
) -> Result<StagePlan, Failure> {
    let whole = split::cut(&stage.split, args)?;
    let rule = stop_rule(stage, args)?;
    let cut = within_budget(whole.clone(), rule.as_ref());
    let (units, items) = split::sizes(&stage.split, &cut)?;
    let most = split::units_reported_max(stage, items)?;
    let stop = rule.zip(stage.stop.as_ref()).map(|(rule, spec)| PlannedStop {
        rule,
        part: spec.part.clone(),
        step: converge::step(units),
        cap: split::items(&whole, units),
    });
    let step = stop.as_ref().map(|stop| stop.step);
    let (shard_units, shards) = sizing::shards(units, stage.fuel_expected, most, &envelope.policy, step)
        .ok_or_else(|| split::too_many(&stage.split, units, sizing::UNITS_PLANNED_MAX))?;
    Ok(StagePlan {
        name: stage.name.clone(),
        key: root.stage_key(&stage.name),
        cut,
        units,
        items,
        shard_units,
        shards,
        limits: stage.limits,
        parts: stage.parts.clone(),
        inputs: stage
            .inputs
            .iter()
            .filter_map(|input| planned_input(&input.name, &input.from, all, args).transpose())
            .collect::<Result<_, _>>()?,
        fuel_expected: stage.fuel_expected,
        stop,
        checks: false,
    })
}

/// The stop rule among the arguments, where the stage may end early and there is one.
fn stop_rule(stage: &Stage, args: &Value) -> Result<Option<StopRule>, Failure> {
    let Some(spec) = &stage.stop else { return Ok(None) };
    args.get(&spec.argument).map(|value| StopRule::parse(&spec.argument, value)).transpose()
}

/// A budget below the count takes its place: no unit beyond it is planned, quoted or run.
fn within_budget(cut: Cut, rule: Option<&StopRule>) -> Cut {
    match (cut, rule.and_then(|rule| rule.budget)) {
        (Cut::Items { total, unit }, Some(budget)) => Cut::Items { total: total.min(budget), unit },
        (cut, _) => cut,
    }
}

/// An input, or `None` where it comes from an argument that is not given: the schema has said that it need not be.
fn planned_input(
    name: &str,
    from: &InputSource,
    stages: &[Stage],
    args: &Value,
) -> Result<Option<PlannedInput>, Failure> {
    let source = match from {
        InputSource::Argument(argument) => {
            let Some(found) = args.get(argument) else { return Ok(None) };
            let digest = found.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
                let detail = format!("args.{argument}: {}", ReferenceError::Shape);
                Failure::new(FailureCode::RequestArguments, detail).at(arguments::pointer(argument))
            })?;
            PlannedSource::Content { digest, bytes: None, argument: argument.clone() }
        }
        InputSource::Stage(stage) => {
            let index = stages.iter().position(|s| s.name == *stage).and_then(|index| u32::try_from(index).ok());
            let index = index.ok_or_else(|| {
                Failure::new(FailureCode::RequestUnknownOp, format!("the kernel names no stage '{stage}'"))
            })?;
            PlannedSource::Stage { index }
        }
    };
    Ok(Some(PlannedInput { name: name.to_owned(), source }))
}

#[cfg(test)]
mod tests;
