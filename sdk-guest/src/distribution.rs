//! Building a `distribution` part: moments by blocks, a log-linear histogram, extrema.

use crate::zeroed::Zeroed;
use crate::{Bucket, Distribution, Extrema, Histogram, Moments};

/// Mantissa bits of a bucket's key: a relative width of 2^-10, about 0.1%.
pub const MANTISSA_BITS: u8 = 10;
const KEY_SHIFT: u32 = 52 - MANTISSA_BITS as u32;
/// Keys of all doubles without a sign: a power of two, so that an index needs no check.
const KEYS: usize = 1 << (11 + MANTISSA_BITS);
/// Lanes of a block's sums: they fill two vectors and hide the latency of an addition.
const LANES: usize = 8;

/// Collects finite values that are not negative, a block at a time.
///
/// **Determinism**: the order of operations is fixed by the sequence of blocks and their lengths.
pub struct Collector {
    moments: Moments,
    /// Bits of the least value, the least above zero and the greatest; bit order is value order where no sign is set.
    least: u64,
    least_positive: u64,
    greatest: u64,
    counts: Zeroed<KEYS>,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// An empty collector.
    #[must_use]
    pub fn new() -> Self {
        let moments = Moments { n: 0, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0 };
        Self { moments, least: u64::MAX, least_positive: u64::MAX, greatest: 0, counts: Zeroed::new() }
    }

    /// Adds one block. Values must be finite and not negative (no negative zero either); nothing else may be given.
    pub fn add(&mut self, block: &[f64]) {
        if block.is_empty() {
            return;
        }
        self.count(block);
        self.moments = merged(&self.moments, &block_moments(block));
    }

    #[expect(clippy::cast_possible_truncation, reason = "a key has 21 bits")]
    fn count(&mut self, block: &[f64]) {
        let (mut least, mut least_positive, mut greatest) = (self.least, self.least_positive, self.greatest);
        for value in block {
            let bits = value.to_bits();
            least = least.min(bits);
            least_positive = least_positive.min(bits.wrapping_sub(1));
            greatest = greatest.max(bits);
            self.counts[(bits >> KEY_SHIFT) as usize & (KEYS - 1)] += 1;
        }
        self.least = least;
        self.least_positive = least_positive;
        self.greatest = greatest;
    }

    /// The distribution of all values added; at least one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a key has 21 bits")]
    pub fn finish(self) -> Distribution {
        // `least_positive` is kept less one, so that zero comes last: nothing has to be skipped between 0 and the rest.
        let last = (self.greatest >> KEY_SHIFT) as usize;
        let first = ((self.least_positive.saturating_add(1) >> KEY_SHIFT) as usize).clamp(1, last + 1);
        let range = self.counts.get(first..=last).unwrap_or_default();
        let mut buckets = vec![Bucket { key: 0, count: 0 }; range.len() + 2];
        let mut used = 0;
        let lowest = self.counts.iter().take(1).map(|count| (0, *count));
        // Every second bucket or so is empty: writing always and advancing by one bit costs no mispredicted branch.
        for (key, count) in lowest.chain((first..).zip(range.iter().copied())) {
            if let Some(bucket) = buckets.get_mut(used) {
                *bucket = Bucket { key: key as u32, count: u64::from(count) };
            }
            used += usize::from(count != 0);
        }
        buckets.truncate(used);
        Distribution {
            moments: self.moments,
            extrema: Extrema { min: f64::from_bits(self.least), max: f64::from_bits(self.greatest) },
            histogram: Histogram { mantissa_bits: MANTISSA_BITS, buckets },
        }
    }
}

/// Moments of one block about its own mean: two passes over eight interleaved sums.
#[expect(clippy::cast_precision_loss, reason = "a block has far fewer than 2^53 values")]
fn block_moments(block: &[f64]) -> Moments {
    let (eights, rest) = block.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value;
        }
    }
    let n = block.len() as f64;
    let mean = (fold(sums) + rest.iter().sum::<f64>()) / n;

    let (mut s2, mut s3, mut s4) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for eight in eights {
        for (lane, value) in eight.iter().enumerate() {
            let (d, d2) = deviation(*value, mean);
            if let (Some(s2), Some(s3), Some(s4)) = (s2.get_mut(lane), s3.get_mut(lane), s4.get_mut(lane)) {
                *s2 += d2;
                *s3 += d2 * d;
                *s4 += d2 * d2;
            }
        }
    }
    let (mut m2, mut m3, mut m4) = (fold(s2), fold(s3), fold(s4));
    for value in rest {
        let (d, d2) = deviation(*value, mean);
        m2 += d2;
        m3 += d2 * d;
        m4 += d2 * d2;
    }
    Moments { n: block.len() as u64, mean, m2, m3, m4 }
}

#[inline(always)]
fn deviation(value: f64, mean: f64) -> (f64, f64) {
    let d = value - mean;
    (d, d * d)
}

fn fold([a, b, c, d, e, f, g, h]: [f64; LANES]) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Moments of two groups together.
///
/// **Source**: T. F. Chan, G. H. Golub, R. J. LeVeque, 1979; P. Pebay, Sandia report SAND2008-6212, equations 1.4 to 1.6.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn merged(a: &Moments, b: &Moments) -> Moments {
    if a.n == 0 {
        return *b;
    }
    if b.n == 0 {
        return *a;
    }
    let (na, nb) = (a.n as f64, b.n as f64);
    let n = na + nb;
    let delta = b.mean - a.mean;
    let step = delta / n;
    let cross = delta * step * na * nb;
    Moments {
        n: a.n + b.n,
        mean: a.mean + step * nb,
        m2: a.m2 + b.m2 + cross,
        m3: a.m3 + b.m3 + cross * step * (na - nb) + 3.0 * step * (na * b.m2 - nb * a.m2),
        m4: a.m4
            + b.m4
            + cross * step * step * (na * na - na * nb + nb * nb)
            + 6.0 * step * step * (na * na * b.m2 + nb * nb * a.m2)
            + 4.0 * step * (na * b.m3 - nb * a.m3),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn values(count: usize) -> Vec<f64> {
        let mut state = 88_172_645_463_325_252_u64;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                f64::from_bits((state >> 12) | 0x3ff0_0000_0000_0000) * 1000.0 - 1000.0
            })
            .collect()
    }

    fn collected(values: &[f64], block: usize) -> Distribution {
        let mut collector = Collector::new();
        values.chunks(block).for_each(|b| collector.add(b));
        collector.finish()
    }

    #[test]
    fn blocks_agree_with_the_definition() {
        let all = values(10_007);
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let power = |k: i32| all.iter().map(|v| (v - mean).powi(k)).sum::<f64>();
        for block in [1, 7, 1024, 20_000] {
            let found = collected(&all, block);
            let close = |a: f64, b: f64, scale: f64| assert!((a - b).abs() <= 1e-11 * scale.abs(), "block {block}: {a} {b}");
            close(found.moments.mean, mean, mean);
            close(found.moments.m2, power(2), power(2));
            close(found.moments.m3, power(3), power(2).powf(1.5));
            close(found.moments.m4, power(4), power(4));
            assert_eq!(found.extrema.min, all.iter().copied().fold(f64::INFINITY, f64::min));
            assert_eq!(found.extrema.max, all.iter().copied().fold(0.0, f64::max));
        }
    }

    #[test]
    fn buckets_are_the_top_bits_in_order() {
        let mut all = values(5_000);
        all.extend([0.0, 0.0, f64::MAX, 5e-324]);
        let found = collected(&all, 512).histogram;
        assert_eq!(found.buckets.iter().map(|b| b.count).sum::<u64>(), 5_004);
        assert!(found.buckets.windows(2).all(|w| w[0].key < w[1].key));
        for bucket in &found.buckets {
            let expected = all.iter().filter(|v| v.to_bits() >> 42 == u64::from(bucket.key)).count() as u64;
            assert_eq!(bucket.count, expected);
        }
    }

    #[test]
    fn one_value_is_a_distribution() {
        let found = collected(&[3.0], 1);
        assert_eq!((found.moments.n, found.moments.mean, found.moments.m2), (1, 3.0, 0.0));
        assert_eq!(found.histogram.buckets.len(), 1);
    }
}
