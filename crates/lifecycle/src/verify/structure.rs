//! What must hold of every answer by itself, whoever gave it.

use forge_contract::Digest;
use forge_contract::canon::CanonError;
use forge_contract::fragment::{Fragment, Part, StructureError};
use forge_contract::report::Completed;
use forge_contract::task::{Cut, Slice};

use crate::plan::StagePlan;

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
    /// The fragment of a unit, where it can be told from its neighbours', is not the one its record commits to.
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
    if count > 1 && Fragment::is_separable(&stage.parts) {
        commitments(first, answer, &fragment)?;
    }
    Ok(fragment)
}

/// Every unit's record must commit to its piece of the folded fragment.
fn commitments(first: u64, answer: &Completed, fragment: &Fragment) -> Result<(), AnswerFault> {
    for ((unit, index), record) in (first..).zip(0..).zip(&answer.units) {
        if fragment.unit(index).is_none_or(|piece| piece.digest() != record.digest) {
            return Err(AnswerFault::Commitment { unit });
        }
    }
    Ok(())
}

/// There must be one tile or segment per unit, exactly where the plan cut it, so that none overlaps and none is missing.
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
            (Part::Tiles(tiles), _) => (tiles.len(), None),
            (Part::Segments(segments), _) => (segments.len(), None),
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
