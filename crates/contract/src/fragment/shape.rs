//! What must be equal of two fragments of one stage so that they fold.

use super::{Fragment, Number, Part};

/// The shape of a fragment: sizes and types that its units share, whatever they found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<(u8, u32, u32)>);

impl Fragment {
    /// Its shape. Fragments of units of one stage that an honest kernel gave have the same one.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let of = |part: &Part| match part {
            Part::Histogram(histogram) => (u8::MAX, histogram.mantissa_bits.into(), 0),
            Part::Distribution(distribution) => (u8::MAX, distribution.histogram.mantissa_bits.into(), 0),
            Part::MatrixSum(matrix) => (u8::MAX, matrix.rows, matrix.columns),
            Part::Rows(rows) => (code(rows.number), rows.columns, 0),
            Part::Tiles(tiles) => (tiles.first().map_or(u8::MAX, |tile| code(tile.number)), 0, 0),
            Part::Count(_)
            | Part::Sum(_)
            | Part::Moments(_)
            | Part::Extrema(_)
            | Part::Segments(_)
            | Part::Bytes(_) => (u8::MAX, 0, 0),
        };
        Shape(self.parts.iter().map(|named| of(&named.part)).collect())
    }
}

const fn code(number: Number) -> u8 {
    match number {
        Number::Float32 => 0,
        Number::Float64 => 1,
        Number::Int32 => 2,
        Number::Int64 => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Histogram, Matrix, Named};
    use super::*;

    fn of(part: Part) -> Shape {
        Fragment { parts: vec![Named { name: "x".into(), part }] }.shape()
    }

    #[test]
    fn what_cannot_be_folded_has_another_shape() {
        let histogram = |mantissa_bits, key| Part::Histogram(Histogram { mantissa_bits, buckets: vec![(key, 1)] });
        assert_eq!(of(histogram(8, 1)), of(histogram(8, 9)));
        assert_ne!(of(histogram(8, 1)), of(histogram(9, 1)));
        let matrix = |rows, columns| Part::MatrixSum(Matrix { rows, columns, values: vec![] });
        assert_ne!(of(matrix(2, 3)), of(matrix(3, 2)));
        assert_eq!(of(Part::Count(1)), of(Part::Count(2)));
    }
}
