//! What an agent answers: a shard's folded fragment with a commitment to every unit, or a typed failure.

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::id::LeaseId;

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

/// How a shard ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was computed.
    Completed(Completed),
    /// It was not.
    Failed(Failure),
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
    use crate::failure::FailureCode;

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
}
