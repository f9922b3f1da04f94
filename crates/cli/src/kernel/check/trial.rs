//! One unit with its task and inputs, run on every backend.

use std::fmt;

use bytes::Bytes;
use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::envelope::Envelope;
use forge_contract::fragment::Fragment;
use forge_contract::manifest::Golden;
use forge_contract::report::{Outcome, UnitVerdict};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use forge_lifecycle::plan::{self, Kernel, Plan};
use forge_sandbox::engine::Backend;
use forge_sandbox::local::{self, LocalKernel};
use forge_sandbox::{Inputs, ShardResult, UnitRun};
use serde_json::{Value, json};

use super::findings::Findings;

/// One unit to run.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Profile.
    pub profile: String,
    /// The stage's name.
    pub stage: String,
    /// Arguments as given, defaults not filled in.
    pub args: Value,
    /// Root seed.
    pub seed: String,
    /// The unit.
    pub unit: u64,
    /// The task of its shard.
    pub task: Task,
    /// What it reads.
    pub reads: Vec<(InputRef, Bytes)>,
    /// The known answer, where the manifest has one.
    pub known: Option<(Digest, u64)>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} unit {}", self.profile, self.stage, self.unit)
    }
}

impl Trial {
    /// Whether its unit is as large as any of the stage.
    pub fn is_full(&self) -> bool {
        let items = |unit| self.task.cut.slice(unit).map_or(0, |slice| slice.items());
        items(self.unit) >= items(0)
    }

    /// The bytes it reads, by name.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::none();
        self.reads.iter().for_each(|(reference, bytes)| inputs.add(reference, bytes.clone()));
        inputs
    }
}

/// What one backend gave: digest and fuel, or why not.
pub type Answer = Result<(Digest, u64), Failure>;

/// A kernel compiled by every backend.
pub struct Engines {
    held: Vec<(Backend, LocalKernel)>,
}

impl Engines {
    /// Compiles a component for every backend.
    ///
    /// # Errors
    /// What the first backend that cannot says.
    pub fn compile(component: &[u8]) -> Result<Self, Failure> {
        let compiled = |backend: Backend| Ok((backend, local::compile(component, backend)?));
        Ok(Self { held: Backend::ALL.into_iter().map(compiled).collect::<Result<_, Failure>>()? })
    }

    /// The trial's unit on every backend, in the order of [`Backend::ALL`].
    pub fn run(&self, trial: &Trial) -> Vec<(Backend, Answer)> {
        let inputs = trial.inputs();
        let run = |(backend, kernel): &(Backend, LocalKernel)| {
            let found = local::run_unit(kernel, &trial.task, trial.unit, &inputs);
            (*backend, found.map(|run| (run.fragment.digest(), run.fuel)))
        };
        self.held.iter().map(run).collect()
    }

    /// The trial's unit on the backend that agents use.
    pub fn run_one(&self, trial: &Trial) -> Answer {
        self.run_task(&trial.task, trial.unit, &trial.inputs())
    }

    fn run_task(&self, task: &Task, unit: u64, inputs: &Inputs) -> Answer {
        let (_, kernel) = self.held.first().ok_or_else(no_engine)?;
        local::run_unit(kernel, task, unit, inputs).map(|run| (run.fragment.digest(), run.fuel))
    }

    /// The trial's unit with its fragment, on the backend that agents use.
    ///
    /// # Errors
    /// The unit's failure.
    pub fn run_whole(&self, trial: &Trial) -> Result<UnitRun, Failure> {
        let (_, kernel) = self.held.first().ok_or_else(no_engine)?;
        local::run_unit(kernel, &trial.task, trial.unit, &trial.inputs())
    }

    /// What the kernel's check says of a fragment for the trial's unit, on every backend.
    pub fn check(
        &self,
        trial: &Trial,
        found: &Fragment,
        challenge: Challenge,
    ) -> Vec<(Backend, Result<UnitVerdict, Failure>)> {
        let bytes = found.encode();
        let found = FoundRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
        let duty = Duty::Check(Examination { found, challenge });
        let task = Task { first_unit: trial.unit, unit_count: 1, duty, ..trial.task.clone() };
        let mut inputs = trial.inputs();
        inputs.set_found(&found, bytes.into());
        let verdict = |kernel: &LocalKernel| match local::run_shard(kernel, &task, &inputs, |_| ()).outcome {
            Outcome::Checked(checked) => checked.units.into_iter().next().ok_or_else(no_engine),
            Outcome::Failed(failure) => Err(failure),
            Outcome::Completed(_) => Err(no_engine()),
        };
        self.held.iter().map(|(backend, kernel)| (*backend, verdict(kernel))).collect()
    }

    /// A whole shard on the backend that agents use.
    pub fn run_shard(&self, task: &Task, inputs: &Inputs) -> ShardResult {
        match self.held.first() {
            Some((_, kernel)) => local::run_shard(kernel, task, inputs, |_| ()),
            None => ShardResult::failed(no_engine()),
        }
    }
}

fn no_engine() -> Failure {
    Failure::new(FailureCode::AgentCompile, "no backend was compiled")
}

/// The plan of a kernel's profile with these arguments and an explicit seed.
///
/// # Errors
/// What planning refuses.
pub fn plan(kernel: &Kernel, profile: &str, args: &Value, seed: &str) -> Result<Plan, Failure> {
    let contract = json!({
        "ctx": {},
        "op": { "name": kernel.manifest.name, "version": kernel.manifest.version, "profile": profile },
        "seed": { "mode": "explicit", "value": seed },
        "policy": { "verify": "none" },
        "args": args,
    });
    plan::plan(&Envelope::parse(contract.to_string().as_bytes())?, kernel)
}

/// The task of the shard that holds a unit; `None` where there is no such stage or unit.
pub fn task(plan: &Plan, stage: &str, unit: u64, inputs: Vec<InputRef>) -> Option<Task> {
    let index = plan.stages.iter().position(|s| s.name == stage)?;
    let held = plan.stages.get(index)?;
    if unit >= held.units {
        return None;
    }
    let shard = u32::try_from(unit / held.shard_units.max(1)).ok()?;
    plan.task(JobId::from_bits(1), u32::try_from(index).ok()?, shard, inputs)
}

/// A profile's known answers as trials; one that cannot be planned is an error of the manifest.
pub fn goldens(kernel: &Kernel, profile: &str, findings: &mut Findings) -> Vec<Trial> {
    let mut trials = Vec::new();
    let declared = kernel.manifest.profiles.get(profile).map(|p| p.goldens.as_slice()).unwrap_or_default();
    for (index, golden) in declared.iter().enumerate() {
        match of_golden(kernel, profile, golden) {
            Ok(trial) => trials.push(trial),
            Err(why) => findings.errors.push(format!("known answer {index} of {profile}: {why}")),
        }
    }
    trials
}

fn of_golden(kernel: &Kernel, profile: &str, golden: &Golden) -> Result<Trial, String> {
    let plan = plan(kernel, profile, &golden.args, &golden.seed).map_err(|failure| failure.detail)?;
    let reads: Vec<(InputRef, Bytes)> =
        golden.reads().into_iter().map(|(reference, bytes)| (reference, Bytes::from(bytes))).collect();
    let references = reads.iter().map(|(reference, _)| reference.clone()).collect();
    let task = task(&plan, &golden.stage, golden.unit, references)
        .ok_or_else(|| format!("there is no unit {} of a stage '{}'", golden.unit, golden.stage))?;
    Ok(Trial {
        profile: profile.to_owned(),
        stage: golden.stage.clone(),
        args: golden.args.clone(),
        seed: golden.seed.clone(),
        unit: golden.unit,
        task,
        reads,
        known: Some((golden.digest, golden.fuel)),
    })
}

/// A failure with what an author can do about it.
pub fn explained(failure: &Failure) -> String {
    let advice = match failure.code {
        FailureCode::AgentTrap => {
            "a trap is a panic, an assertion or an index out of range; on wasm32-unknown-unknown `Instant::now`, `SystemTime::now`, threads and files panic too"
        }
        FailureCode::AgentFuelExhausted => "raise the stage's limits.fuel, or make its units smaller",
        FailureCode::AgentMemoryLimit => {
            "raise the stage's limits.memory_bytes (at most 536870912) and build again, or hold less at once"
        }
        FailureCode::AgentStackOverflow => "recurse less deeply, or keep large arrays on the heap",
        FailureCode::AgentOutputInvalid => {
            "a fragment has the parts that kernel.toml declares: the same names and kinds in the same order, finite numbers, and n equal to the unit's items where counts_items is set"
        }
        FailureCode::AgentOutputTooLarge => "raise the stage's limits.output_bytes (at most 67108864), or give less",
        FailureCode::AgentCompile => "the engine refuses the component; build it with this program's `kernel build`",
        FailureCode::AgentKernelArguments => {
            "the kernel itself refuses these arguments; narrow the schema so that the hub does, and give `examples` it takes"
        }
        _ => "",
    };
    let text = format!("{} ({})", failure.detail, failure.code);
    if advice.is_empty() { text } else { format!("{text}; {advice}") }
}
