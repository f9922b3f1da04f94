//! What an agent is told: one shard, a run of units of one stage.

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;
use crate::duty::{Duty, Examination};
use crate::id::JobId;
pub use crate::input::InputRef;
use crate::limits::UnitLimits;
use crate::manifest::PartSpec;
use crate::seed::StageKey;

/// A rectangle of a matrix: `rows x columns` cells from (`row`, `column`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rectangle {
    /// First row.
    pub row: u64,
    /// First column.
    pub column: u64,
    /// Number of rows.
    pub rows: u32,
    /// Number of columns.
    pub columns: u32,
}

/// The half-open interval `start .. end`, in the stage's time base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// First instant.
    pub start: i64,
    /// First instant after it.
    pub end: i64,
}

/// The piece of a stage that a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slice {
    /// Items `first .. first + count` of a counted whole.
    Items {
        /// First item.
        first: u64,
        /// Number of items.
        count: u64,
    },
    /// A rectangle of the output matrix.
    Rectangle(Rectangle),
    /// The element of a listed argument.
    Element(u64),
    /// An interval of time.
    Interval(Interval),
    /// The whole stage.
    Whole,
}

/// How a stage is cut into units, with the numbers filled in.
///
/// Units of `Tiles` run row-major over the grid of tiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// `total` items, `unit` items each, the last unit what remains.
    Items {
        /// Items in all.
        total: u64,
        /// Items per unit, at least 1.
        unit: u64,
    },
    /// A `rows x columns` matrix in tiles of at most `tile_rows x tile_columns`.
    Tiles {
        /// Rows of the matrix.
        rows: u64,
        /// Columns of the matrix.
        columns: u64,
        /// Rows of a tile, at least 1.
        tile_rows: u32,
        /// Columns of a tile, at least 1.
        tile_columns: u32,
    },
    /// One unit per element of a list.
    Elements {
        /// Length of the list.
        count: u64,
    },
    /// One unit between each two neighbouring boundaries (rising).
    Segments {
        /// The boundaries.
        boundaries: Vec<i64>,
    },
    /// One unit.
    Once,
}

impl Cut {
    /// Number of units.
    #[must_use]
    pub fn units(&self) -> u64 {
        match self {
            Self::Items { total, unit } => total.div_ceil((*unit).max(1)),
            Self::Tiles { rows, columns, tile_rows, tile_columns } => {
                let down = rows.div_ceil(u64::from(*tile_rows).max(1));
                down.saturating_mul(columns.div_ceil(u64::from(*tile_columns).max(1)))
            }
            Self::Elements { count } => *count,
            Self::Segments { boundaries } => (boundaries.len() as u64).saturating_sub(1),
            Self::Once => 1,
        }
    }

    /// The slice of unit `index`; `None` past the last.
    #[must_use]
    pub fn slice(&self, index: u64) -> Option<Slice> {
        if index >= self.units() {
            return None;
        }
        Some(match self {
            Self::Items { total, unit } => {
                let first = index.checked_mul(*unit)?;
                let count = (*unit).min(total.checked_sub(first)?);
                Slice::Items { first, count }
            }
            Self::Tiles { rows, columns, tile_rows, tile_columns } => {
                let (high, wide) = (u64::from(*tile_rows).max(1), u64::from(*tile_columns).max(1));
                let across = columns.div_ceil(wide).max(1);
                let (row, column) = ((index / across).checked_mul(high)?, (index % across).checked_mul(wide)?);
                Slice::Rectangle(Rectangle {
                    row,
                    column,
                    rows: u32::try_from(high.min(rows.checked_sub(row)?)).ok()?,
                    columns: u32::try_from(wide.min(columns.checked_sub(column)?)).ok()?,
                })
            }
            Self::Elements { .. } => Slice::Element(index),
            Self::Segments { boundaries } => {
                let at = usize::try_from(index).ok()?;
                Slice::Interval(Interval { start: *boundaries.get(at)?, end: *boundaries.get(at + 1)? })
            }
            Self::Once => Slice::Whole,
        })
    }
}

impl Slice {
    /// How many items of work the slice holds: items, cells, or 1.
    #[must_use]
    pub fn items(&self) -> u64 {
        match self {
            Self::Items { count, .. } => *count,
            Self::Rectangle(r) => u64::from(r.rows) * u64::from(r.columns),
            Self::Element(_) | Self::Interval(_) | Self::Whole => 1,
        }
    }
}

/// Everything an agent needs to run one shard, and nothing about who asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The job, for logs and for keeping one worker per job; no part of the computation.
    pub job: JobId,
    /// Index of the stage in the plan.
    pub stage_index: u32,
    /// Index of the shard in the stage.
    pub shard: u32,
    /// The kernel's component, by content.
    pub component: Digest,
    /// Size of the component, bytes.
    pub component_bytes: u64,
    /// Profile name.
    pub profile: String,
    /// Stage name.
    pub stage: String,
    /// The contract's args: canonical JSON, defaults filled in.
    pub args: String,
    /// The stage's key.
    pub key: StageKey,
    /// How the stage is cut.
    pub cut: Cut,
    /// First unit of the shard, a multiple of `2^ceil(log2(unit_count))`.
    pub first_unit: u64,
    /// Units of the shard, at least 1, at most [`crate::limits::SHARD_UNITS_MAX`].
    pub unit_count: u64,
    /// Limits of each unit.
    pub limits: UnitLimits,
    /// The parts every fragment must have, in this order.
    pub parts: Vec<PartSpec>,
    /// What the units may read.
    pub inputs: Vec<InputRef>,
    /// What is done with the units.
    pub duty: Duty,
}

impl Task {
    /// What is asked for, without who asked: equal keys must give equal answers (SECURITY 4, "verdict key").
    ///
    /// The key of a check is no key of the computation: an answer to the one is none to the other.
    #[must_use]
    pub fn key_digest(&self) -> Digest {
        let computed = self.computation_digest();
        match &self.duty {
            Duty::Compute => computed,
            Duty::Check(Examination { found, challenge }) => {
                let mut w = Writer::with_capacity(96);
                w.digest(&computed);
                w.digest(&found.digest);
                w.digest(&Digest::from_bytes(challenge.0));
                Digest::tagged("forgepool v1 check task", &w.into_bytes())
            }
        }
    }

    /// What is computed, whether the task asks for that or for a check of it.
    #[must_use]
    pub fn computation_digest(&self) -> Digest {
        let mut w = Writer::new();
        w.digest(&self.component);
        for text in [&self.profile, &self.stage, &self.args] {
            w.str(text);
        }
        w.digest(&Digest::from_bytes(self.key.0));
        encode_cut(&self.cut, &mut w);
        for number in
            [self.first_unit, self.unit_count, self.limits.fuel, self.limits.memory_bytes, self.limits.output_bytes]
        {
            w.u64(number);
        }
        w.u64(self.inputs.len() as u64);
        for input in &self.inputs {
            w.str(&input.name);
            w.digest(&input.digest);
        }
        Digest::tagged("forgepool v1 task", &w.into_bytes())
    }
}

fn encode_cut(cut: &Cut, w: &mut Writer) {
    match cut {
        Cut::Items { total, unit } => {
            w.u8(0);
            w.u64(*total);
            w.u64(*unit);
        }
        Cut::Tiles { rows, columns, tile_rows, tile_columns } => {
            w.u8(1);
            w.u64(*rows);
            w.u64(*columns);
            w.u64(u64::from(*tile_rows));
            w.u64(u64::from(*tile_columns));
        }
        Cut::Elements { count } => {
            w.u8(2);
            w.u64(*count);
        }
        Cut::Segments { boundaries } => {
            w.u8(3);
            w.u64(boundaries.len() as u64);
            boundaries.iter().for_each(|b| w.i64(*b));
        }
        Cut::Once => w.u8(4),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::duty::{Challenge, FoundRef};
    use proptest::prelude::*;

    fn task(duty: Duty) -> Task {
        Task {
            job: JobId::from_bits(3),
            stage_index: 1,
            shard: 2,
            component: Digest::of(b"c"),
            component_bytes: 300,
            profile: "p.v1".into(),
            stage: "s".into(),
            args: "{}".into(),
            key: StageKey([0x11; 32]),
            cut: Cut::Items { total: 100, unit: 10 },
            first_unit: 4,
            unit_count: 2,
            limits: UnitLimits { fuel: 5, memory_bytes: 6, output_bytes: 7 },
            parts: vec![],
            inputs: vec![InputRef { name: "in".into(), digest: Digest::of(b"i"), bytes: 9 }],
            duty,
        }
    }

    #[test]
    fn the_key_of_a_computation_stays_as_it_is() {
        // Stored evidence rests on it.
        let pinned = "254ed41a84b4c2c07871d066ae7019f64ae1f982210a95153180e991560941c8";
        assert_eq!(task(Duty::Compute).key_digest().to_string(), pinned);
    }

    #[test]
    fn the_key_of_a_check_covers_what_is_checked_and_with_what() {
        let check = |found: &[u8], challenge| {
            let found = FoundRef { digest: Digest::of(found), bytes: 9 };
            task(Duty::Check(Examination { found, challenge: Challenge([challenge; 32]) }))
        };
        let base = check(b"f", 1);
        assert_eq!(base.computation_digest(), task(Duty::Compute).key_digest());
        let others = [task(Duty::Compute), check(b"g", 1), check(b"f", 2)];
        assert!(others.iter().all(|other| other.key_digest() != base.key_digest()));
    }

    #[test]
    fn last_items_are_what_remains() {
        let cut = Cut::Items { total: 1_000_000, unit: 65_536 };
        assert_eq!(cut.units(), 16);
        assert_eq!(cut.slice(15), Some(Slice::Items { first: 983_040, count: 16_960 }));
        assert_eq!(cut.slice(16), None);
    }

    proptest! {
        #[test]
        fn items_cover_the_whole_once(total in 0u64..10_000, unit in 1u64..500) {
            let cut = Cut::Items { total, unit };
            let mut next = 0;
            for index in 0..cut.units() {
                let Some(Slice::Items { first, count }) = cut.slice(index) else { panic!() };
                prop_assert_eq!(first, next);
                prop_assert!(count >= 1);
                next += count;
            }
            prop_assert_eq!(next, total);
        }

        #[test]
        fn tiles_cover_every_cell_once(rows in 1u64..60, columns in 1u64..60, tr in 1u32..17, tc in 1u32..17) {
            let cut = Cut::Tiles { rows, columns, tile_rows: tr, tile_columns: tc };
            let mut seen = vec![0u8; usize::try_from(rows * columns).unwrap()];
            for index in 0..cut.units() {
                let Some(Slice::Rectangle(r)) = cut.slice(index) else { panic!() };
                for row in r.row..r.row + u64::from(r.rows) {
                    for column in r.column..r.column + u64::from(r.columns) {
                        *seen.get_mut(usize::try_from(row * columns + column).unwrap()).unwrap() += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|n| *n == 1));
        }
    }
}
