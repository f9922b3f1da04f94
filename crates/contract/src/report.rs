//! What an agent answers: a shard's folded fragment with a commitment to every unit, verdicts on what another found,
//! or a typed failure.

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;
use crate::failure::{Failure, FailureCode};
use crate::id::LeaseId;
use crate::limits::{DETAIL_BYTES_MAX, REASONS_BYTES_MAX};

const STATEMENT: &str = "forgepool v1 report";

/// The commitment to one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Digest of the unit's fragment.
    pub digest: Digest,
    /// Fuel the call burned.
    pub fuel: u64,
}

/// A shard that was computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// The folded fragment, canonical bytes.
    #[serde(with = "serde_bytes")]
    pub fragment: Vec<u8>,
    /// One record per unit, in unit order.
    pub units: Vec<UnitRecord>,
}

impl Completed {
    /// Fuel of all units; saturates.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.units.iter().fold(0, |sum, unit| sum.saturating_add(unit.fuel))
    }

    /// What copies of a shard are compared by: the fragment's bytes, every unit's digest and fuel.
    #[must_use]
    pub fn result_digest(&self) -> Digest {
        result_digest(&Digest::of(&self.fragment), &self.units)
    }
}

/// [`Completed::result_digest`] of a fragment known by its digest.
#[must_use]
pub fn result_digest(fragment: &Digest, units: &[UnitRecord]) -> Digest {
    let mut w = Writer::with_capacity(40 + units.len() * 40);
    w.digest(fragment);
    w.u64(units.len() as u64);
    for unit in units {
        w.digest(&unit.digest);
        w.u64(unit.fuel);
    }
    Digest::tagged("forgepool v1 shard result", &w.into_bytes())
}

/// What a kernel's cheap check says of a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The fragment passed.
    Sound {
        /// The probability, 0 to 1, with which a wrong one would have passed too.
        error: f64,
    },
    /// The fragment is not what the unit gives.
    Wrong {
        /// Why, for people; at most [`DETAIL_BYTES_MAX`] bytes.
        reason: String,
    },
}

impl Finding {
    /// Whether a probability is one: 0 to 1.
    #[must_use]
    pub fn is_legal(&self) -> bool {
        match self {
            Self::Sound { error } => (0.0..=1.0).contains(error),
            Self::Wrong { .. } => true,
        }
    }
}

/// The verdict on one unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitVerdict {
    /// What the check says.
    pub finding: Finding,
    /// Fuel the check burned.
    pub fuel: u64,
}

/// A shard whose units another agent's answer was checked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// One verdict per unit, in unit order.
    pub units: Vec<UnitVerdict>,
}

impl Checked {
    /// Fuel of all checks; saturates.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.units.iter().fold(0, |sum, unit| sum.saturating_add(unit.fuel))
    }

    /// What copies of a check are compared by: every unit's finding and fuel.
    #[must_use]
    pub fn result_digest(&self) -> Digest {
        let mut w = Writer::with_capacity(10 + self.units.len() * 20);
        w.u64(self.units.len() as u64);
        for unit in &self.units {
            match &unit.finding {
                Finding::Sound { error } => {
                    w.u8(0);
                    w.f64(*error);
                }
                Finding::Wrong { reason } => {
                    w.u8(1);
                    w.str(reason);
                }
            }
            w.u64(unit.fuel);
        }
        Digest::tagged("forgepool v1 check result", &w.into_bytes())
    }

    /// Cuts the reasons to what a report carries: each to [`DETAIL_BYTES_MAX`] bytes, and all together to
    /// [`REASONS_BYTES_MAX`], the first ones first. A reason may end up empty; its verdict stays.
    pub fn shorten(&mut self) {
        let mut left = REASONS_BYTES_MAX;
        for unit in &mut self.units {
            if let Finding::Wrong { reason } = &mut unit.finding {
                reason.truncate(reason.floor_char_boundary(left.min(DETAIL_BYTES_MAX)));
                left -= reason.len();
            }
        }
    }
}

/// How a shard ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was computed.
    Completed(Completed),
    /// It was not.
    Failed(Failure),
    /// What was found for it was checked.
    Checked(Checked),
}

impl Outcome {
    /// The computed shard.
    ///
    /// # Errors
    /// Its failure; `agent.protocol` where verdicts came instead.
    pub fn completed(self) -> Result<Completed, Failure> {
        match self {
            Self::Completed(completed) => Ok(completed),
            Self::Failed(failure) => Err(failure),
            Self::Checked(_) => Err(verdicts_unasked()),
        }
    }
}

/// Verdicts came where a computed shard was asked for.
#[must_use]
pub fn verdicts_unasked() -> Failure {
    Failure::new(FailureCode::AgentProtocol, "the report holds verdicts where a computed shard was asked for")
}

/// What running a shard took. Measurements: no part of any result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Wall time in the worker, microseconds.
    pub wall_us: u64,
    /// Processor time of the worker, microseconds.
    pub cpu_us: u64,
    /// Wall time spent fetching and compiling before it, microseconds.
    pub prepare_us: u64,
}

/// An agent's answer to one lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The lease answered.
    pub lease: LeaseId,
    /// Key of the task (`Task::key_digest`), so that an answer cannot be moved to another shard.
    pub task: Digest,
    /// Engine profile the shard ran under.
    pub engine: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// What it took.
    pub usage: Usage,
    /// What the kernel printed, cut at [`crate::limits::LOG_BYTES_MAX`].
    pub log: String,
}

impl Report {
    /// What the agent signs: lease, task, engine and outcome. Usage and log are not signed.
    #[must_use]
    pub fn statement(&self) -> Digest {
        match &self.outcome {
            Outcome::Completed(completed) => {
                statement_of(self.lease, &self.task, &self.engine, &completed.result_digest())
            }
            Outcome::Failed(failure) => {
                let mut w = stated(self.lease, &self.task, &self.engine);
                w.u8(1);
                w.str(failure.code.as_str());
                w.str(&failure.detail);
                w.u8(u8::from(failure.unit.is_some()));
                w.u64(failure.unit.unwrap_or(0));
                Digest::tagged(STATEMENT, &w.into_bytes())
            }
            Outcome::Checked(checked) => {
                check_statement_of(self.lease, &self.task, &self.engine, &checked.result_digest())
            }
        }
    }
}

/// [`Report::statement`] of a shard that was computed, with this result.
#[must_use]
pub fn statement_of(lease: LeaseId, task: &Digest, engine: &Digest, result: &Digest) -> Digest {
    let mut w = stated(lease, task, engine);
    w.u8(0);
    w.digest(result);
    Digest::tagged(STATEMENT, &w.into_bytes())
}

/// [`Report::statement`] of a kernel's check with this result.
#[must_use]
pub fn check_statement_of(lease: LeaseId, task: &Digest, engine: &Digest, result: &Digest) -> Digest {
    let mut w = stated(lease, task, engine);
    w.u8(2);
    w.digest(result);
    Digest::tagged(STATEMENT, &w.into_bytes())
}

fn stated(lease: LeaseId, task: &Digest, engine: &Digest) -> Writer {
    let mut w = Writer::new();
    w.u64(lease.0);
    w.digest(task);
    w.digest(engine);
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fuel: u64) -> Report {
        let unit = UnitRecord { digest: Digest::of(b"u"), fuel };
        Report {
            lease: LeaseId(7),
            task: Digest::of(b"t"),
            engine: Digest::of(b"e"),
            outcome: Outcome::Completed(Completed { fragment: vec![1], units: vec![unit] }),
            usage: Usage::default(),
            log: String::new(),
        }
    }

    #[test]
    fn the_statement_covers_the_outcome_and_not_the_measurements() {
        let base = report(5);
        assert_ne!(base.statement(), report(6).statement());
        let mut slower = base.clone();
        slower.usage.wall_us = 9;
        slower.log = "hello".into();
        assert_eq!(base.statement(), slower.statement());
        let mut moved = base.clone();
        moved.task = Digest::of(b"other");
        assert_ne!(base.statement(), moved.statement());
        let mut failed = base.clone();
        failed.outcome = Outcome::Failed(Failure::new(FailureCode::AgentTrap, "x"));
        assert_ne!(base.statement(), failed.statement());
    }

    fn checked(finding: Finding, fuel: u64) -> Checked {
        Checked { units: vec![UnitVerdict { finding, fuel }] }
    }

    #[test]
    fn the_statement_covers_every_verdict() {
        let wrong = |reason: &str| Finding::Wrong { reason: reason.into() };
        let sound = |error| Finding::Sound { error };
        let two = Checked { units: vec![UnitVerdict { finding: sound(0.5), fuel: 1 }; 2] };
        let all = [
            checked(sound(0.5), 1),
            checked(sound(0.25), 1),
            checked(sound(0.5), 2),
            checked(wrong("a"), 1),
            checked(wrong("b"), 1),
            checked(wrong(""), 1),
            two,
        ];
        let state = |checked| Report { outcome: Outcome::Checked(checked), ..report(1) }.statement();
        let mut statements: Vec<Digest> = all.into_iter().map(state).collect();
        statements.push(report(1).statement());
        let distinct: std::collections::BTreeSet<&Digest> = statements.iter().collect();
        assert_eq!(distinct.len(), statements.len());
    }

    #[test]
    fn reasons_are_cut_and_verdicts_stay() {
        let units = REASONS_BYTES_MAX / DETAIL_BYTES_MAX + 2;
        let long = UnitVerdict { finding: Finding::Wrong { reason: "é".repeat(DETAIL_BYTES_MAX) }, fuel: 1 };
        let mut checked = Checked { units: vec![long; units] };
        checked.shorten();
        let lengths = checked.units.iter().map(|unit| match &unit.finding {
            Finding::Wrong { reason } => reason.len(),
            Finding::Sound { .. } => usize::MAX,
        });
        let lengths: Vec<usize> = lengths.collect();
        assert_eq!(lengths.first(), Some(&DETAIL_BYTES_MAX));
        assert_eq!(lengths.last(), Some(&0));
        assert_eq!((lengths.len(), lengths.iter().sum()), (units, REASONS_BYTES_MAX));
    }

    #[test]
    fn a_probability_is_one() {
        let legal = |error| Finding::Sound { error }.is_legal();
        assert!(legal(0.0) && legal(1.0));
        assert!(!legal(-0.1) && !legal(1.1) && !legal(f64::NAN));
    }
}
