//! The two precisions, and the innermost loop of each.

use core::ops::{Add, Mul};

use forge_sdk_guest::Number;

use crate::vector::{F32s, F64s};

/// Rows of the innermost block.
pub const ROWS: usize = 4;
/// Steps of k in one turn of the innermost loop: the fuel counter is looked at once a turn.
const UNROLLED: usize = 4;

/// A precision: `f64` for `dgemm`, `f32` for `sgemm`.
///
/// **Determinism**: sums and products round once each, to nearest even; nothing is fused.
pub trait Real: Copy + PartialEq + Add<Output = Self> + Mul<Output = Self> {
    /// How parts and files name it.
    const NUMBER: Number;
    /// Columns of the innermost block.
    const COLUMNS: usize;
    /// Zero.
    const ZERO: Self;

    /// The nearest number of this precision.
    fn nearest(value: f64) -> Self;

    /// Whether it is neither infinite nor a NaN.
    fn finite(self) -> bool;

    /// The numbers that little-endian bytes hold.
    fn read(bytes: &[u8]) -> impl Iterator<Item = Self>;

    /// Writes its bytes, little-endian.
    fn write(self, to: &mut Vec<u8>);

    /// Adds to a block of [`ROWS`] x `COLUMNS` sums the sum of outer products of packed columns of A and rows of B.
    ///
    /// **Shape**: `a` holds [`ROWS`] numbers for each step of k, `b` `COLUMNS`; `stride` is the length of a row of
    /// `sums`.
    /// **Order**: for each cell, products in k order from zero, then that sum added to the cell.
    fn add_block(a: &[Self], b: &[Self], sums: &mut [Self], stride: usize);
}

macro_rules! real {
    ($real:ty, $number:ident, $vector:ident, $lanes:literal, $bytes:literal) => {
        impl Real for $real {
            const NUMBER: Number = Number::$number;
            const COLUMNS: usize = 2 * $lanes;
            const ZERO: Self = 0.0;

            #[expect(clippy::allow_attributes, reason = "one of the two conversions truncates")]
            #[allow(clippy::cast_possible_truncation, reason = "rounding to this precision is what is asked for")]
            #[allow(clippy::unnecessary_cast, reason = "no cast for doubles")]
            fn nearest(value: f64) -> Self {
                value as Self
            }

            fn finite(self) -> bool {
                self.is_finite()
            }

            fn read(bytes: &[u8]) -> impl Iterator<Item = Self> {
                bytes.as_chunks::<$bytes>().0.iter().map(|bytes| Self::from_le_bytes(*bytes))
            }

            fn write(self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn add_block(a: &[Self], b: &[Self], sums: &mut [Self], stride: usize) {
                let mut block = [[$vector::splat(0.0); 2]; ROWS];
                let mut step = |a: &[Self; ROWS], b: &[Self; 2 * $lanes]| {
                    let (left, right) = (lanes::<_, $lanes, 0>(b), lanes::<_, $lanes, 1>(b));
                    let (left, right) = ($vector::load(left), $vector::load(right));
                    for row in 0..ROWS {
                        let factor = $vector::splat(a[row]);
                        block[row][0] = block[row][0].add(factor.mul(left));
                        block[row][1] = block[row][1].add(factor.mul(right));
                    }
                };
                let (a, a_rest) = a.as_chunks::<ROWS>().0.as_chunks::<UNROLLED>();
                let (b, b_rest) = b.as_chunks::<{ 2 * $lanes }>().0.as_chunks::<UNROLLED>();
                for (a, b) in a.iter().zip(b) {
                    for index in 0..UNROLLED {
                        step(&a[index], &b[index]);
                    }
                }
                for (a, b) in a_rest.iter().zip(b_rest) {
                    step(a, b);
                }
                for (sums, block) in sums.chunks_mut(stride).zip(&block) {
                    for (sums, block) in sums.as_chunks_mut::<$lanes>().0.iter_mut().zip(block) {
                        $vector::load(sums).add(*block).store(sums);
                    }
                }
            }
        }
    };
}

/// The first or the second half of a packed row.
#[inline(always)]
fn lanes<T, const LANES: usize, const HALF: usize>(row: &[T]) -> &[T; LANES] {
    &row.as_chunks::<LANES>().0[HALF]
}

real!(f64, Float64, F64s, 2, 8);
real!(f32, Float32, F32s, 4, 4);
