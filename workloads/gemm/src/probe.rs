//! A row seen through two random vectors and a weighted sum of squares: all that a check reads of a matrix.

use forge_sdk_guest::rng::Generator;

use crate::real::Real;
use crate::vector::{F32s, F64s};

/// Vectors in a [`Probe`]: two random ones, then the weights of the squares.
const VECTORS: usize = 3;
/// Groups of lanes in one turn of the innermost loop: the fuel counter is looked at once a turn.
const UNROLLED: usize = 4;

/// A precision that can be probed.
pub trait Probed: Real + Into<f64> {
    /// Numbers of a vector of 128 bits.
    const LANES: usize;
    /// Half the distance from 1 to the next number: the unit roundoff.
    const ROUNDOFF: f64;

    /// A number whose magnitude is uniform on 1 up to 2, of either sign: none is small, so that a single wrong entry
    /// always shows.
    fn random(generator: &mut Generator) -> Self;

    /// The number at a place of a row's bytes.
    fn at(row: &[u8], place: usize) -> Self;

    /// Sums over a row: its numbers times the first vector, times the second, and their squares, weighted or as they are.
    ///
    /// **Shape**: `row` holds little-endian numbers, as many as the probe was made for.
    fn look<const WEIGHTED: bool>(row: &[u8], probe: &Probe<Self>) -> [f64; VECTORS];
}

/// Two vectors and weights of squares, interleaved by groups of lanes and filled up with zeros to whole groups.
#[derive(Clone, Debug)]
pub struct Probe<T> {
    lanes: Vec<T>,
}

impl<T: Probed> Probe<T> {
    /// A probe for rows of `length` numbers: all zero.
    pub fn zero(length: usize) -> Self {
        Self { lanes: vec![T::ZERO; length.div_ceil(T::LANES) * T::LANES * VECTORS] }
    }

    /// Two random vectors; squares are not to be weighted.
    pub fn random(length: usize, generator: &mut Generator) -> Self {
        let mut probe = Self::zero(length);
        for place in 0..length {
            let (first, second) = (T::random(generator), T::random(generator));
            probe.set(place, [first, second, T::ZERO]);
        }
        probe
    }

    /// Sets what a place is multiplied with.
    pub fn set(&mut self, place: usize, values: [T; VECTORS]) {
        let group = &mut self.lanes[place / T::LANES * T::LANES * VECTORS..][..T::LANES * VECTORS];
        for (lanes, value) in group.chunks_mut(T::LANES).zip(values) {
            lanes[place % T::LANES] = value;
        }
    }
}

macro_rules! probed {
    ($real:ty, $vector:ident, $lanes:literal, $bytes:literal, $roundoff:expr, $random:expr) => {
        impl Probed for $real {
            const LANES: usize = $lanes;
            const ROUNDOFF: f64 = $roundoff;

            fn random(generator: &mut Generator) -> Self {
                $random(generator)
            }

            fn at(row: &[u8], place: usize) -> Self {
                Self::from_le_bytes(row.as_chunks::<$bytes>().0[place])
            }

            fn look<const WEIGHTED: bool>(row: &[u8], probe: &Probe<Self>) -> [f64; VECTORS] {
                // Two sets take turns: each sum waits for the one before it.
                let mut sums = [[$vector::splat(0.0); VECTORS]; 2];
                let mut group = |turn: usize, bytes: &[u8; 16], lanes: &[[$real; $lanes]; VECTORS]| {
                    let value = $vector::read(bytes);
                    let sums = &mut sums[turn];
                    sums[0] = sums[0].add(value.mul($vector::load(&lanes[0])));
                    sums[1] = sums[1].add(value.mul($vector::load(&lanes[1])));
                    let square = value.mul(value);
                    let square = if WEIGHTED { square.mul($vector::load(&lanes[2])) } else { square };
                    sums[2] = sums[2].add(square);
                };
                let (whole, tail) = row.as_chunks::<16>();
                let (values, values_rest) = whole.as_chunks::<UNROLLED>();
                let lanes = probe.lanes.as_chunks::<$lanes>().0.as_chunks::<VECTORS>().0;
                let (weights, weights_rest) = lanes.as_chunks::<UNROLLED>();
                for (bytes, lanes) in values.iter().zip(weights) {
                    for index in 0..UNROLLED {
                        group(index % 2, &bytes[index], &lanes[index]);
                    }
                }
                // A group that is not whole may be among the unrolled ones' lanes.
                let mut rest =
                    weights.get(values.len()..).unwrap_or_default().as_flattened().iter().chain(weights_rest);
                for (bytes, lanes) in values_rest.iter().zip(&mut rest) {
                    group(0, bytes, lanes);
                }
                if let (false, Some(lanes)) = (tail.is_empty(), rest.next()) {
                    let mut bytes = [0; 16];
                    bytes[..tail.len()].copy_from_slice(tail);
                    group(0, &bytes, lanes);
                }
                let [even, odd] = sums;
                core::array::from_fn(|vector| even[vector].add(odd[vector]).sum())
            }
        }
    };
}

/// Exponent bits of 1, with the leading bits of a word behind them and its last bit as the sign.
fn random_f64(generator: &mut Generator) -> f64 {
    let word = generator.next_u64();
    f64::from_bits(word << 63 | 1023 << 52 | word >> 12)
}

fn random_f32(generator: &mut Generator) -> f32 {
    let word = generator.next_u32();
    f32::from_bits(word << 31 | 127 << 23 | word >> 9)
}

probed!(f64, F64s, 2, 8, f64::EPSILON / 2.0, random_f64);
probed!(f32, F32s, 4, 4, f32::EPSILON as f64 / 2.0, random_f32);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Real>(values: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.write(&mut bytes));
        bytes
    }

    #[test]
    fn sums_are_those_of_plain_loops() {
        let mut generator = Generator::new(&[3; 32], 0);
        for length in 1..40_usize {
            let mut probe = Probe::<f64>::random(length, &mut generator);
            let mut expected = [0.0; VECTORS];
            let row: Vec<f64> = (0..length).map(|_| f64::from(generator.next_u32() % 1000)).collect();
            for (place, value) in row.iter().enumerate() {
                // Whole numbers: sums are exact in any order.
                let values = [0, 1, 2].map(|_| f64::from(generator.next_u32() % 100));
                probe.set(place, values);
                for (sum, (value, weight)) in
                    expected.iter_mut().zip([*value, *value, value * value].into_iter().zip(values))
                {
                    *sum += value * weight;
                }
            }
            assert_eq!(f64::look::<true>(&bytes(&row), &probe), expected, "{length}");
            let single: Vec<f32> = row.iter().map(|value| f32::nearest(*value % 16.0)).collect();
            let mut probe = Probe::<f32>::zero(length);
            (0..length).for_each(|place| probe.set(place, [1.0, 2.0, 3.0]));
            let sum: f64 = single.iter().map(|value| f64::from(*value)).sum();
            let squares: f64 = single.iter().map(|value| f64::from(value * value)).sum();
            assert_eq!(f32::look::<false>(&bytes(&single), &probe), [sum, 2.0 * sum, squares], "{length}");
        }
    }

    #[test]
    fn random_numbers_are_never_small_and_of_both_signs() {
        let mut generator = Generator::new(&[5; 32], 0);
        let doubles: Vec<f64> = (0..2000).map(|_| f64::random(&mut generator)).collect();
        let singles: Vec<f64> = (0..2000).map(|_| f32::random(&mut generator).into()).collect();
        for numbers in [doubles, singles] {
            assert!(numbers.iter().all(|number| (1.0..2.0).contains(&number.abs())));
            let negative = numbers.iter().filter(|number| **number < 0.0).count();
            assert!((850..1150).contains(&negative), "{negative}");
            let mean = numbers.iter().map(|number| number.abs()).sum::<f64>() / 2000.0;
            assert!((mean - 1.5).abs() < 0.03, "{mean}");
        }
    }
}
