//! The trial of a kernel that was admitted by parsing: verifiers run its known answers, one unit at a time.
//!
//! A verifier is an agent the operator runs and trusts, so one answer settles a unit. What the kernel is to blame for
//! ends the trial at once; what a machine or the network is to blame for is tried again, elsewhere where it can be.

use std::collections::BTreeSet;
use std::sync::Arc;

use forge_contract::envelope::Requires;
use forge_contract::failure::Blame;
use forge_contract::fragment::Fragment;
use forge_contract::manifest::Manifest;
use forge_contract::report::{Completed, Outcome, Report, UnitRecord, verdicts_unasked};
use forge_contract::task::Task;
use forge_contract::{AgentId, Digest, Failure, FailureCode, JobId, LeaseId};
use serde::{Deserialize, Serialize};

use crate::member::ProjectTag;
use crate::plan::{Kernel, golden_task};

/// Most known answers of a kernel.
pub const GOLDENS_MAX: usize = 64;
/// Most fuel that all known answers of a kernel may burn together: some minutes of one core.
pub const GOLDENS_FUEL_MAX: u64 = 1 << 38;
/// Fuel a unit may burn beyond its known answer before it is cut off.
const FUEL_MARGIN: u64 = 1_000_000;

/// One trial; numbers are unique within a process of the hub.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrialId(pub u64);

impl TrialId {
    /// The job its tasks carry: of 1970, so that no accepted job is meant.
    #[must_use]
    pub const fn job(self) -> JobId {
        JobId::from_bits(self.0 as u128)
    }
}

/// A unit to run and what it must give.
#[derive(Clone, Debug, PartialEq)]
pub struct Exam {
    /// The unit.
    pub task: Arc<Task>,
    /// What it must give.
    pub expected: UnitRecord,
}

impl Exam {
    /// Where it is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        let Task { profile, stage, first_unit, .. } = &*self.task;
        format!("profile '{profile}', stage '{stage}', unit {first_unit}")
    }
}

/// Why a kernel's known answers cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoldenError {
    /// Too many.
    #[error("the profiles have {found} goldens, at most {GOLDENS_MAX} are admitted; keep the most telling ones")]
    Count {
        /// How many.
        found: usize,
    },
    /// Together too long.
    #[error(
        "the goldens burn {found} fuel together, at most {GOLDENS_FUEL_MAX} are admitted; record smaller units or fewer"
    )]
    Fuel {
        /// How much.
        found: u64,
    },
    /// One that cannot be run.
    #[error("/profiles/{profile}/goldens/{index}: {reason}")]
    Unusable {
        /// The profile.
        profile: String,
        /// Its position.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// None at all.
    #[error(
        "/profiles/{profile}/goldens: an uploaded kernel needs at least one known answer for each profile; \
         record them with `forgepool kernel check --record`"
    )]
    Missing {
        /// The profile.
        profile: String,
    },
}

/// The units that a kernel's known answers stand for, by profile and position. Their fuel is limited to little more
/// than what they are said to burn.
///
/// # Errors
/// What keeps the first unusable one from being run; `Count`, `Fuel`.
pub fn exams(kernel: &Kernel, trial: TrialId) -> Result<Vec<Exam>, GoldenError> {
    let goldens = || {
        kernel.manifest.profiles.iter().flat_map(|(name, profile)| (0..).zip(&profile.goldens).map(move |g| (name, g)))
    };
    let found = goldens().count();
    if found > GOLDENS_MAX {
        return Err(GoldenError::Count { found });
    }
    let fuel = goldens().fold(0u64, |sum, (_, (_, golden))| sum.saturating_add(golden.fuel));
    if fuel > GOLDENS_FUEL_MAX {
        return Err(GoldenError::Fuel { found: fuel });
    }
    let exam = |(profile, (index, golden)): (&String, (usize, &forge_contract::manifest::Golden))| {
        let task = golden_task(kernel, profile, golden, trial.job());
        let unusable =
            |failure: Failure| GoldenError::Unusable { profile: profile.clone(), index, reason: failure.detail };
        let mut task = task.map_err(unusable)?;
        let ample = golden.fuel.saturating_mul(2).saturating_add(FUEL_MARGIN);
        task.limits.fuel = task.limits.fuel.min(ample);
        Ok(Exam { task: Arc::new(task), expected: UnitRecord { digest: golden.digest, fuel: golden.fuel } })
    };
    goldens().map(exam).collect()
}

/// What the units of a kernel's known answers read, by content: to be served to whoever runs them.
#[must_use]
pub fn contents(manifest: &Manifest) -> Vec<(Digest, Vec<u8>)> {
    let goldens = manifest.profiles.values().flat_map(|profile| &profile.goldens);
    goldens.flat_map(|golden| golden.reads()).map(|(input, bytes)| (input.digest, bytes)).collect()
}

/// Whether every profile has a known answer, as an upload must.
///
/// # Errors
/// `Missing`, at the first profile without one.
pub fn every_profile_has_one(manifest: &Manifest) -> Result<(), GoldenError> {
    let bare = manifest.profiles.iter().find(|(_, profile)| profile.goldens.is_empty());
    bare.map_or(Ok(()), |(profile, _)| Err(GoldenError::Missing { profile: profile.clone() }))
}

/// A known answer that a verifier found true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Profile.
    pub profile: String,
    /// Stage.
    pub stage: String,
    /// Unit.
    pub unit: u64,
    /// Engine profile it ran under.
    pub engine: Digest,
    /// Who ran it.
    pub verifier: AgentId,
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialVerdict {
    /// Known answers found true.
    pub passed: Vec<Passed>,
    /// Why the kernel is refused; `None` where it is admitted.
    pub refused: Option<Failure>,
}

/// Where a trial's units may run: with verifiers that may work for the kernel's project.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// The kernel's project.
    pub project: Option<ProjectTag>,
    /// What the project asks of agents.
    pub requires: Option<Arc<Requires>>,
}

/// What an ended lease of a trial means for its agent and for the trial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The unit gave what it must.
    Next,
    /// Try again: the machine or the network is to blame.
    Again(FailureCode),
    /// The trial is over.
    Ended(TrialVerdict),
}

/// A trial under way: its units in order, at most one lease at a time.
#[derive(Debug)]
pub(crate) struct Trial {
    exams: Vec<Exam>,
    grounds: Grounds,
    passed: Vec<Passed>,
    live: Option<(LeaseId, AgentId)>,
    /// Who ran the last unit: it has the compiled code.
    last: Option<AgentId>,
    avoid: BTreeSet<AgentId>,
    failures: u32,
    losses: u32,
}

impl Trial {
    pub fn new(exams: Vec<Exam>, grounds: Grounds) -> Self {
        let (passed, avoid) = (Vec::new(), BTreeSet::new());
        Self { exams, grounds, passed, live: None, last: None, avoid, failures: 0, losses: 0 }
    }

    /// The unit that waits for a verifier.
    pub fn waiting(&self) -> Option<&Exam> {
        if self.live.is_some() { None } else { self.exams.get(self.passed.len()) }
    }

    pub fn last(&self) -> Option<AgentId> {
        self.last
    }

    /// Where its units may run.
    pub fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    /// Whether another verifier is preferred to this one.
    pub fn avoids(&self, agent: &AgentId) -> bool {
        self.avoid.contains(agent)
    }

    /// It failed everywhere: a new round begins.
    pub fn forgive(&mut self) {
        self.avoid.clear();
    }

    pub fn given(&mut self, lease: LeaseId, agent: AgentId) {
        self.live = Some((lease, agent));
        self.last = Some(agent);
    }

    /// The lease was taken back without anybody's fault.
    pub fn withdrawn(&mut self) {
        self.live = None;
    }

    /// A trial without units ends as it begins.
    pub fn ended(&self) -> Option<TrialVerdict> {
        let done = self.passed.len() == self.exams.len();
        done.then(|| TrialVerdict { passed: self.passed.clone(), refused: None })
    }

    /// Takes the answer to its lease.
    pub fn report(&mut self, report: Report, most: Most) -> Step {
        let Some((_, agent)) = self.live else { return Step::Next };
        let Some(exam) = self.exams.get(self.passed.len()) else { return Step::Next };
        if report.task != exam.task.key_digest() {
            let failure = Failure::new(FailureCode::AgentProtocol, "the report answers another task");
            return self.broken(failure, most);
        }
        match report.outcome {
            Outcome::Failed(failure) => self.broken(failure, most),
            Outcome::Checked(_) => self.broken(verdicts_unasked(), most),
            Outcome::Completed(completed) => match differs(exam, &completed) {
                Some(failure) => self.refuse(failure),
                None => {
                    let Task { profile, stage, first_unit, .. } = &*exam.task;
                    let (profile, stage, unit) = (profile.clone(), stage.clone(), *first_unit);
                    self.passed.push(Passed { profile, stage, unit, engine: report.engine, verifier: agent });
                    self.live = None;
                    self.ended().map_or(Step::Next, Step::Ended)
                }
            },
        }
    }

    /// Its lease ended without an answer, or with a failure.
    pub fn broken(&mut self, failure: Failure, most: Most) -> Step {
        let place = self.exams.get(self.passed.len()).map(Exam::place).unwrap_or_default();
        let code = failure.code;
        if code == FailureCode::AgentCompile {
            return self.refuse(Failure::new(code, failure.detail));
        }
        if code.blame() == Blame::Kernel {
            return self
                .refuse(Failure::new(code, format!("{place}: {}; a golden must run to its end", failure.detail)));
        }
        if let Some((_, agent)) = self.live.take() {
            self.avoid.insert(agent);
        }
        let lost = matches!(code, FailureCode::AgentLost | FailureCode::AgentDeclined);
        if lost {
            self.losses += 1
        } else {
            self.failures += 1
        }
        if self.failures >= most.failures || self.losses >= most.losses {
            let times = self.failures + self.losses;
            let detail = format!(
                "{place}: no verifier could run it in {times} attempts; the last time: {failure}; upload the kernel again to have it tried again"
            );
            return self.refuse(Failure::new(FailureCode::AgentAttemptsExhausted, detail));
        }
        Step::Again(code)
    }

    fn refuse(&mut self, failure: Failure) -> Step {
        self.live = None;
        Step::Ended(TrialVerdict { passed: core::mem::take(&mut self.passed), refused: Some(failure) })
    }
}

/// How much a trial puts up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Attempts that failed for a reason of the machine.
    pub failures: u32,
    /// Attempts lost with their agent, or declined.
    pub losses: u32,
}

/// In what a unit's answer is not the known one.
fn differs(exam: &Exam, completed: &Completed) -> Option<Failure> {
    let golden = |found: String| {
        let UnitRecord { digest, fuel } = exam.expected;
        let detail = format!(
            "{}: the golden says digest {digest} and fuel {fuel}, a verifier found {found}; if the kernel is right, record \
             its goldens again with `forgepool kernel check --record`",
            exam.place()
        );
        Some(Failure::new(FailureCode::RequestComponentGolden, detail))
    };
    let [unit] = completed.units.as_slice() else {
        return golden(format!("{} units", completed.units.len()));
    };
    if *unit != exam.expected || Digest::of(&completed.fragment) != unit.digest {
        return golden(format!("digest {} and fuel {}", unit.digest, unit.fuel));
    }
    let items = exam.task.cut.slice(exam.task.first_unit).map_or(0, |slice| slice.items());
    let fragment = Fragment::decode(&completed.fragment).map_err(|error| error.to_string());
    let checked = fragment.and_then(|f| f.check(&exam.task.parts, items).map_err(|error| error.to_string()));
    checked.err().and_then(golden)
}

#[cfg(test)]
mod tests;
