//! Numeric arrays as they are kept: a type, a shape, numbers in C order, little-endian, in one canonical file.

pub mod npy;
pub mod slice;

use crate::fragment::Number;

/// Most dimensions.
pub const DIMENSIONS_MAX: usize = 8;

/// Why a shape is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Too many dimensions.
    #[error("an array has at most {DIMENSIONS_MAX} dimensions, found {found}")]
    Dimensions {
        /// How many.
        found: usize,
    },
    /// More bytes than a number of 63 bits can say.
    #[error("an array of this shape has more than 2^63 bytes")]
    Size,
}

/// What an array is: the type of its numbers, and how many of them along each dimension. C order, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayType {
    /// Type of its numbers.
    pub number: Number,
    /// Numbers along each dimension; none is a single number.
    pub shape: Vec<u64>,
}

impl ArrayType {
    /// An array of this type and shape.
    ///
    /// # Errors
    /// See [`ShapeError`].
    pub fn new(number: Number, shape: Vec<u64>) -> Result<Self, ShapeError> {
        if shape.len() > DIMENSIONS_MAX {
            return Err(ShapeError::Dimensions { found: shape.len() });
        }
        // Without its empty dimensions: those must not hide that the others are absurd.
        let product = shape.iter().filter(|length| **length > 0).try_fold(number.bytes(), |sum, n| sum.checked_mul(*n));
        if product.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
            return Err(ShapeError::Size);
        }
        Ok(Self { number, shape })
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Size of the numbers, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count() * self.number.bytes()
    }
}

/// The short name of a type: `f32`, `f64`, `i32`, `i64`.
#[must_use]
pub const fn dtype(number: Number) -> &'static str {
    match number {
        Number::Float32 => "f32",
        Number::Float64 => "f64",
        Number::Int32 => "i32",
        Number::Int64 => "i64",
    }
}

/// The type of this short name.
#[must_use]
pub fn number_of(dtype_name: &str) -> Option<Number> {
    let all = [Number::Float32, Number::Float64, Number::Int32, Number::Int64];
    all.into_iter().find(|number| dtype(*number) == dtype_name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shapes_have_bounds() {
        let of = |shape: &[u64]| ArrayType::new(Number::Float64, shape.to_vec());
        assert_eq!(of(&[]).unwrap().bytes(), 8);
        assert_eq!(of(&[3, 0, 2]).unwrap().bytes(), 0);
        assert_eq!(of(&[2; 8]).unwrap().bytes(), 2048);
        assert_eq!(of(&[1; 9]), Err(ShapeError::Dimensions { found: 9 }));
        for absurd in [&[1 << 60, 2][..], &[u64::MAX, u64::MAX], &[0, u64::MAX, 3]] {
            assert_eq!(of(absurd), Err(ShapeError::Size), "{absurd:?}");
        }
        for number in [Number::Float32, Number::Float64, Number::Int32, Number::Int64] {
            assert_eq!(number_of(dtype(number)), Some(number));
        }
    }
}
