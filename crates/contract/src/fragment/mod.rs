//! What units find, and the one native way to fold it.
//!
//! A fragment is a list of named parts, each one of a closed set. Agents fold units into shards and the hub folds
//! shards into a result with the same [`Part::combine`], along one fixed binary tree ([`tree::Fold`]), so the bits
//! of a sum never depend on how the work was cut.

mod codec;
mod combine;
mod separate;
mod shape;
mod structure;
pub mod tree;

pub use codec::{TileView, View, view};
pub use combine::CombineError;
pub use shape::Shape;
pub use structure::StructureError;

use crate::digest::Digest;
use crate::manifest::PartKind;
use crate::task::{Interval, Rectangle};

/// Central moments of n values: n, mean, and the sums of (x - mean)^k for k = 2, 3, 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Number of values.
    pub n: u64,
    /// Mean.
    pub mean: f64,
    /// Sum of squared deviations.
    pub m2: f64,
    /// Sum of cubed deviations.
    pub m3: f64,
    /// Sum of fourth powers of deviations.
    pub m4: f64,
}

/// Smallest and largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extrema {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Counts per bucket of an IEEE 754 log-linear histogram.
///
/// A bucket's key is the top `12 + mantissa_bits` bits of the value as a double, so its relative width is
/// `2^-mantissa_bits` and no logarithm is taken. Keys rise; no key twice; no zero count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// 4 to 20.
    pub mantissa_bits: u8,
    /// (key, count), by rising key.
    pub buckets: Vec<(u32, u64)>,
}

/// Moments, extrema and histogram of one quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Central moments.
    pub moments: Moments,
    /// Smallest and largest.
    pub extrema: Extrema,
    /// Counts.
    pub histogram: Histogram,
}

/// Type of the numbers in raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Number {
    /// IEEE 754 single, 4 bytes.
    Float32,
    /// IEEE 754 double, 8 bytes.
    Float64,
    /// Two's complement, 4 bytes.
    Int32,
    /// Two's complement, 8 bytes.
    Int64,
}

impl Number {
    /// Bytes per number.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Float32 | Self::Int32 => 4,
            Self::Float64 | Self::Int64 => 8,
        }
    }
}

/// A matrix `[rows x columns]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// `rows * columns` values.
    pub values: Vec<f64>,
}

/// A piece of a matrix with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its place.
    pub at: Rectangle,
    /// Type of its numbers.
    pub number: Number,
    /// Row-major, little-endian.
    pub values: Vec<u8>,
}

/// Rows of a table, with the index of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// First row.
    pub first: u64,
    /// Columns.
    pub columns: u32,
    /// Type of the numbers.
    pub number: Number,
    /// Row-major, little-endian.
    pub values: Vec<u8>,
}

/// A piece of a film.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its place in time.
    pub at: Interval,
    /// Its bytes.
    pub media: Vec<u8>,
}

/// One thing a unit found.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Folds by checked addition.
    Count(u64),
    /// Folds by addition in tree order.
    Sum(f64),
    /// Folds by the formulas of Chan (1979) and Pebay (2008) in tree order.
    Moments(Moments),
    /// Folds by minimum and maximum.
    Extrema(Extrema),
    /// Folds by adding counts.
    Histogram(Histogram),
    /// Folds each of its three.
    Distribution(Distribution),
    /// Folds elementwise by addition in tree order.
    MatrixSum(Matrix),
    /// Folds into the list of tiles by unit; stitched at the end, no hole, no overlap.
    Tiles(Vec<Tile>),
    /// Folds by stacking; the rows of neighbours must meet.
    Rows(Rows),
    /// Folds into the list of segments; neighbours must meet.
    Segments(Vec<Segment>),
    /// Folds by concatenation.
    Bytes(Vec<u8>),
}

/// A part with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Name, as the manifest declares it.
    pub name: String,
    /// The part.
    pub part: Part,
}

/// What a unit, a shard or a stage found: the parts its manifest declares, in that order.
#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    /// The parts.
    pub parts: Vec<Named>,
}

impl Part {
    /// Which of the closed set this is.
    #[must_use]
    pub const fn kind(&self) -> PartKind {
        match self {
            Self::Count(_) => PartKind::Count,
            Self::Sum(_) => PartKind::Sum,
            Self::Moments(_) => PartKind::Moments,
            Self::Extrema(_) => PartKind::Extrema,
            Self::Histogram(_) => PartKind::Histogram,
            Self::Distribution(_) => PartKind::Distribution,
            Self::MatrixSum(_) => PartKind::MatrixSum,
            Self::Tiles(_) => PartKind::Tile,
            Self::Rows(_) => PartKind::Rows,
            Self::Segments(_) => PartKind::Segment,
            Self::Bytes(_) => PartKind::Bytes,
        }
    }
}

impl Histogram {
    /// The bucket of a value: its top `12 + mantissa_bits` bits. Negative zero counts as zero.
    #[must_use]
    pub fn key(value: f64, mantissa_bits: u8) -> u32 {
        let bits = if value == 0.0 { 0 } else { value.to_bits() };
        let shift = 52u32.saturating_sub(u32::from(mantissa_bits)).clamp(32, 48);
        u32::try_from(bits >> shift).unwrap_or(u32::MAX)
    }

    /// The edges of a bucket, `lower <= upper` in value: it holds the values between them.
    #[must_use]
    pub fn edges(key: u32, mantissa_bits: u8) -> (f64, f64) {
        let shift = 52u32.saturating_sub(u32::from(mantissa_bits)).clamp(32, 48);
        let near = f64::from_bits(u64::from(key) << shift);
        let far = f64::from_bits(u64::from(key).wrapping_add(1) << shift);
        if near.is_sign_negative() { (far, near) } else { (near, far) }
    }

    /// All counts; `None` beyond 64 bits.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.buckets.iter().try_fold(0u64, |sum, (_, count)| sum.checked_add(*count))
    }

    /// Buckets by rising value: negative keys fall before positive ones and in reverse.
    pub fn by_value(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let sign = 1u32 << (11 + u32::from(self.mantissa_bits));
        let split = self.buckets.partition_point(|(key, _)| key & sign == 0);
        let (positive, negative) = self.buckets.split_at(split);
        negative.iter().rev().chain(positive).copied()
    }
}

impl Fragment {
    /// Its content address: the digest of its canonical bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// The part of this name.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|named| named.name == name).map(|named| &named.part)
    }
}

#[cfg(test)]
mod testing {
    use super::*;
    use proptest::prelude::*;

    fn histogram() -> impl Strategy<Value = Histogram> {
        (4u8..=20, prop::collection::btree_map(any::<u32>(), 1u64.., 0..20))
            .prop_map(|(mantissa_bits, buckets)| Histogram { mantissa_bits, buckets: buckets.into_iter().collect() })
    }

    fn part() -> impl Strategy<Value = Part> {
        let number =
            prop_oneof![Just(Number::Float32), Just(Number::Float64), Just(Number::Int32), Just(Number::Int64)];
        let finite = -1e300f64..1e300;
        prop_oneof![
            any::<u64>().prop_map(Part::Count),
            finite.clone().prop_map(Part::Sum),
            histogram().prop_map(Part::Histogram),
            (any::<u64>(), finite.clone(), finite, histogram()).prop_map(|(n, x, y, histogram)| Part::Distribution(
                Distribution {
                    moments: Moments { n, mean: x, m2: y, m3: x, m4: y },
                    extrema: Extrema { min: x, max: y },
                    histogram,
                }
            )),
            prop::collection::vec(-1e9f64..1e9, 0..9).prop_map(|values| Part::MatrixSum(Matrix {
                rows: 1,
                columns: u32::try_from(values.len()).unwrap_or(0),
                values
            })),
            (any::<u64>(), any::<u32>(), number, any::<Vec<u8>>())
                .prop_map(|(first, columns, number, values)| Part::Rows(Rows { first, columns, number, values })),
            any::<(i64, i64, Vec<u8>)>()
                .prop_map(|(start, end, media)| Part::Segments(vec![Segment { at: Interval { start, end }, media }])),
            any::<Vec<u8>>().prop_map(Part::Bytes),
        ]
    }

    /// Any fragment that has an encoding, structurally sound or not.
    pub fn fragment() -> impl Strategy<Value = Fragment> {
        prop::collection::vec(("[a-z]{1,8}", part()), 0..5)
            .prop_map(|parts| Fragment { parts: parts.into_iter().map(|(name, part)| Named { name, part }).collect() })
    }
}
