//! Verdicts: what must hold of every answer, which answers are copied, and what copies that differ mean.
//!
//! `none` runs the structural checks alone. `spotcheck` draws a share of the shards by a keyed hash of a hub secret,
//! looked at only once the answer is in. `quorum` and `full` want two distinct agents for every shard. Answers that
//! differ call for further agents until more than half agree; those outvoted get no more work. Who owns an agent is
//! not known here yet: distinct means distinct agents.

use forge_contract::canon::{CanonError, Writer};
use forge_contract::envelope::VerifyMode;
use forge_contract::fragment::{Fragment, Part, StructureError};
use forge_contract::report::Completed;
use forge_contract::task::{Cut, Slice};
use forge_contract::{AgentId, Digest, JobId};
use serde::{Deserialize, Serialize};

use crate::plan::StagePlan;

/// What the checks said of one accepted shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How sure.
    pub standing: Standing,
    /// Other agents that gave the same bits, fuel included.
    pub agreed: Vec<AgentId>,
    /// Agents that gave other bits and were outvoted.
    pub refuted: Vec<AgentId>,
    /// Attempts that failed before.
    pub failed: u32,
}

/// How sure an accepted shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Structural checks only: the mode, or the draw, asked for no copy.
    #[default]
    Structural,
    /// At least one copy on another agent gave the same bits.
    Matched,
    /// A copy was wanted and no other agent was there to make it.
    Unchecked,
}

/// What the checks of a whole job found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// The policy's mode.
    pub mode: VerifyMode,
    /// Shards accepted.
    pub shards: u64,
    /// Shards whose copies were compared.
    pub checked: u64,
    /// Of these, shards where all copies were equal.
    pub matched: u64,
    /// Of these, shards where an agent was outvoted.
    pub refuted: u64,
    /// Shards that failed on an agent and were accepted from another attempt.
    pub reassigned: u64,
    /// Shards whose check was drawn and not possible.
    pub unchecked: u64,
    /// Answers thrown away because they break a structural rule.
    pub malformed: u64,
    /// Agents outvoted.
    pub agents_refuted: Vec<AgentId>,
}

impl VerificationReport {
    /// Counts one accepted shard.
    pub fn add(&mut self, verdict: &Verdict) {
        self.shards += 1;
        let compared = !verdict.agreed.is_empty() || !verdict.refuted.is_empty();
        self.checked += u64::from(compared);
        self.matched += u64::from(compared && verdict.refuted.is_empty());
        self.refuted += u64::from(!verdict.refuted.is_empty());
        self.reassigned += u64::from(verdict.failed > 0);
        self.unchecked += u64::from(verdict.standing == Standing::Unchecked);
        for agent in &verdict.refuted {
            if !self.agents_refuted.contains(agent) {
                self.agents_refuted.push(*agent);
            }
        }
    }
}

/// Which structural rule an answer breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Not one record per unit.
    #[error("{found} unit records for {expected} units")]
    Units {
        /// Units of the shard.
        expected: u64,
        /// Records found.
        found: u64,
    },
    /// A unit says it burned more than its limit.
    #[error("unit {unit} says it burned {found} fuel, its limit is {max}")]
    Fuel {
        /// The unit.
        unit: u64,
        /// Fuel said.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The fragment is larger than all its units may be.
    #[error("the fragment has {found} bytes, {max} are allowed")]
    Bytes {
        /// Bytes found.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The fragment of a single unit is not the one its record commits to.
    #[error("the fragment of unit {unit} is not the one its record commits to")]
    Commitment {
        /// The unit.
        unit: u64,
    },
    /// The bytes are no canonical fragment.
    #[error("the fragment is not canonical: {0}")]
    Canon(#[from] CanonError),
    /// A part breaks a rule of its kind.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// Tiles or segments do not lie where the plan cut them.
    #[error("part '{part}': piece {index} does not lie where the plan cut it")]
    Misplaced {
        /// The part.
        part: String,
        /// Position in the part.
        index: usize,
    },
}

/// Checks an answer by itself and decodes its fragment.
///
/// # Errors
/// The first structural rule broken.
pub fn structure(stage: &StagePlan, shard: u32, answer: &Completed) -> Result<Fragment, AnswerFault> {
    let (first, count) = stage.shard_run(shard).unwrap_or((0, 0));
    let found = answer.units.len() as u64;
    if found != count {
        return Err(AnswerFault::Units { expected: count, found });
    }
    for (unit, record) in (first..).zip(&answer.units) {
        if record.fuel > stage.limits.fuel {
            return Err(AnswerFault::Fuel { unit, found: record.fuel, max: stage.limits.fuel });
        }
    }
    let (found, max) = (answer.fragment.len() as u64, stage.limits.output_bytes.saturating_mul(count));
    if found > max {
        return Err(AnswerFault::Bytes { found, max });
    }
    if let [only] = answer.units.as_slice()
        && only.digest != Digest::of(&answer.fragment)
    {
        return Err(AnswerFault::Commitment { unit: first });
    }
    let fragment = Fragment::decode(&answer.fragment)?;
    fragment.check(&stage.parts, stage.items_of(first, count))?;
    places(&stage.cut, first, count, &fragment)?;
    Ok(fragment)
}

/// Tiles and segments must lie exactly where the plan cut them, so that none overlaps and none is missing.
fn places(cut: &Cut, first: u64, count: u64, fragment: &Fragment) -> Result<(), AnswerFault> {
    let slices = || (first..first + count).map(|unit| cut.slice(unit));
    for named in &fragment.parts {
        let misplaced = |index| AnswerFault::Misplaced { part: named.name.clone(), index };
        let (pieces, wrong) = match (&named.part, cut) {
            (Part::Tiles(tiles), Cut::Tiles { .. }) => {
                let wrong =
                    tiles.iter().zip(slices()).position(|(tile, slice)| slice != Some(Slice::Rectangle(tile.at)));
                (tiles.len(), wrong)
            }
            (Part::Segments(segments), Cut::Segments { .. }) => {
                let wrong = segments.iter().zip(slices()).position(|(s, slice)| slice != Some(Slice::Interval(s.at)));
                (segments.len(), wrong)
            }
            _ => continue,
        };
        if let Some(index) = wrong {
            return Err(misplaced(index));
        }
        if pieces as u64 != count {
            return Err(misplaced(pieces));
        }
    }
    Ok(())
}

/// Whether a spot check falls on a shard. Looked at only once its answer is in; nobody without the secret can tell.
#[must_use]
pub fn drawn(secret: &[u8; 32], job: JobId, stage: u32, shard: u32, per_million: u32) -> bool {
    let mut w = Writer::new();
    w.str(&job.to_string());
    w.u64(u64::from(stage));
    w.u64(u64::from(shard));
    let hash = blake3::keyed_hash(secret, &w.into_bytes());
    let mut head = [0u8; 8];
    head.copy_from_slice(hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    // A share of 2^64 is as good as a share of a million: the bias is below 2^-43.
    u64::from_le_bytes(head) % 1_000_000 < u64::from(per_million)
}

/// What the answers at hand mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Accept this one.
    Accept(Digest),
    /// Ask this many further agents.
    More(u32),
    /// As many copies as allowed, and no majority.
    Unsettled,
}

/// Decides by the digests of the answers of distinct agents.
///
/// `want` is how many equal answers the mode asks for. Answers that differ are settled by more than half.
#[must_use]
pub fn decide(answers: &[Digest], want: u32, copies_max: u32) -> Decision {
    let total = u32::try_from(answers.len()).unwrap_or(u32::MAX);
    let count = |digest: &Digest| answers.iter().filter(|other| *other == digest).count();
    let Some(best) = answers.iter().max_by_key(|digest| (count(digest), **digest)).copied() else {
        return Decision::More(want.max(1));
    };
    let votes = u32::try_from(count(&best)).unwrap_or(u32::MAX);
    if votes == total {
        return if total >= want { Decision::Accept(best) } else { Decision::More(want - total) };
    }
    if votes >= 2 && votes * 2 > total {
        return Decision::Accept(best);
    }
    if total >= copies_max { Decision::Unsettled } else { Decision::More(1) }
}

/// How many equal answers a mode asks for.
#[must_use]
pub const fn wanted(mode: VerifyMode, drawn: bool) -> u32 {
    match mode {
        VerifyMode::None => 1,
        VerifyMode::Spotcheck => 1 + drawn as u32,
        VerifyMode::Quorum | VerifyMode::Full => 2,
    }
}

#[cfg(test)]
mod tests;
