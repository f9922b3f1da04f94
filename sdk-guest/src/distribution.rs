//! Building a `distribution` part: moments by blocks, a log-linear histogram, extrema.

use crate::lanes::F64x2;
use crate::{Bucket, Distribution, Extrema, Histogram, Moments};

/// Mantissa bits of a bucket's key: a relative width of 2^-10, about 0.1%.
pub const MANTISSA_BITS: u8 = 10;
const KEY_SHIFT: u32 = 52 - MANTISSA_BITS as u32;
/// Keys of one exponent.
const EXPONENT_KEYS: usize = 1 << MANTISSA_BITS;
/// Exponents that the window of counts has to spare on either side of the first block's values.
const EXPONENTS_SPARE: usize = 4;

/// Collects positive finite values and zeros, a block at a time.
///
/// **Determinism**: the order of operations is fixed by the sequence of blocks and their lengths.
pub struct Collector {
    moments: Moments,
    extrema: Extrema,
    /// Counts of the keys from `first` on: a window over all exponents seen so far.
    counts: Vec<u32>,
    first: usize,
    zeros: u64,
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
        let extrema = Extrema { min: f64::INFINITY, max: 0.0 };
        Self { moments, extrema, counts: Vec::new(), first: 0, zeros: 0 }
    }

    /// Adds one block: these values, which must be positive and finite, and so many zeros.
    pub fn add(&mut self, block: &[f64], zeros: usize) {
        if block.is_empty() && zeros == 0 {
            return;
        }
        let (moments, extrema) = summary(block, zeros);
        if !block.is_empty() {
            self.widen(key(extrema.min), key(extrema.max));
            self.count(block);
        }
        self.moments = merged(&self.moments, &moments);
        self.extrema.min = extrema.min.min(self.extrema.min);
        self.extrema.max = extrema.max.max(self.extrema.max);
        self.zeros += zeros as u64;
    }

    fn count(&mut self, block: &[f64]) {
        let (eights, rest) = block.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in eights {
            // Written out: a loop of eight is not unrolled for WebAssembly.
            self.count_one(*a);
            self.count_one(*b);
            self.count_one(*c);
            self.count_one(*d);
            self.count_one(*e);
            self.count_one(*f);
            self.count_one(*g);
            self.count_one(*h);
        }
        rest.iter().for_each(|value| self.count_one(*value));
    }

    #[inline(always)]
    fn count_one(&mut self, value: f64) {
        if let Some(count) = self.counts.get_mut(key(value).wrapping_sub(self.first)) {
            *count += 1;
        }
    }

    /// Makes the window hold these keys and all between them.
    fn widen(&mut self, least: usize, greatest: usize) {
        if least >= self.first && greatest < self.first + self.counts.len() {
            return;
        }
        let spare = EXPONENTS_SPARE * EXPONENT_KEYS;
        let first = (least / EXPONENT_KEYS * EXPONENT_KEYS).saturating_sub(spare);
        let end = (greatest / EXPONENT_KEYS + 1) * EXPONENT_KEYS + spare;
        let (first, end) = if self.counts.is_empty() {
            (first, end)
        } else {
            (first.min(self.first), end.max(self.first + self.counts.len()))
        };
        let mut wider = vec![0; end - first];
        let place = self.first.saturating_sub(first);
        if let Some(old) = wider.get_mut(place..place + self.counts.len()) {
            old.copy_from_slice(&self.counts);
        }
        (self.counts, self.first) = (wider, first);
    }

    /// The distribution of all values added; at least one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a key has 21 bits")]
    pub fn finish(self) -> Distribution {
        let Extrema { min, max } = self.extrema;
        let keys = if self.counts.is_empty() { 0..0 } else { key(min)..key(max) + 1 };
        let counts = self.counts.iter().skip(keys.start.saturating_sub(self.first)).take(keys.len());
        let used: usize = counts.clone().map(|count| usize::from(*count != 0)).sum();

        // One more than there is, for the write ahead of the last.
        let mut buckets = vec![Bucket { key: 0, count: self.zeros }; used + 2];
        let mut next = usize::from(self.zeros != 0);
        // Every second count or so is zero: writing always and advancing by one bit costs no mispredicted branch.
        for (key, count) in keys.zip(counts) {
            if let Some(bucket) = buckets.get_mut(next) {
                *bucket = Bucket { key: key as u32, count: u64::from(*count) };
            }
            next += usize::from(*count != 0);
        }
        buckets.truncate(next);
        // A value too small to be normal has the key of zero.
        if let [zero, lowest, ..] = buckets.as_mut_slice()
            && zero.key == lowest.key
        {
            lowest.count += zero.count;
            buckets.remove(0);
        }
        let extrema = if self.zeros == 0 { Extrema { min, max } } else { Extrema { min: 0.0, max } };
        Distribution { moments: self.moments, extrema, histogram: Histogram { mantissa_bits: MANTISSA_BITS, buckets } }
    }
}

fn key(value: f64) -> usize {
    (value.to_bits() >> KEY_SHIFT) as usize
}

/// Moments of one block and its zeros about their mean, in two passes over four interleaved sums; extrema without the zeros.
#[expect(clippy::cast_precision_loss, reason = "a block has far fewer than 2^53 values")]
fn summary(block: &[f64], zeros: usize) -> (Moments, Extrema) {
    let (pairs, rest) = block.as_chunks::<2>();
    let (fours, odd) = pairs.as_chunks::<2>();
    let zero = F64x2::splat(0.0);
    let mut sums = [zero; 2];
    let (mut least, mut greatest) = (F64x2::splat(f64::INFINITY), zero);
    for [a, b] in fours {
        let (a, b) = (F64x2::load(a), F64x2::load(b));
        sums = [sums[0].add(a), sums[1].add(b)];
        least = least.min(a).min(b);
        greatest = greatest.max(a).max(b);
    }
    let rest = || odd.as_flattened().iter().chain(rest);
    let n = (block.len() + zeros) as f64;
    let mean = (fold(sums) + rest().sum::<f64>()) / n;

    let centre = F64x2::splat(mean);
    let (mut s2, mut s3, mut s4) = ([zero; 2], [zero; 2], [zero; 2]);
    for four in fours {
        for (lane, pair) in four.iter().enumerate() {
            let d = F64x2::load(pair).sub(centre);
            let d2 = d.mul(d);
            s2[lane] = s2[lane].add(d2);
            s3[lane] = s3[lane].add(d2.mul(d));
            s4[lane] = s4[lane].add(d2.mul(d2));
        }
    }
    let (mut m2, mut m3, mut m4) = (fold(s2), fold(s3), fold(s4));
    let single = rest().map(|value| (*value, 1.0));
    for (value, times) in single.chain([(0.0, zeros as f64)]) {
        let d = value - mean;
        let d2 = d * d;
        m2 += times * d2;
        m3 += times * d2 * d;
        m4 += times * d2 * d2;
    }
    let [(a, b), (c, d)] = [least.to_array().into(), greatest.to_array().into()];
    let extrema =
        Extrema { min: rest().copied().fold(a.min(b), f64::min), max: rest().copied().fold(c.max(d), f64::max) };
    (Moments { n: (block.len() + zeros) as u64, mean, m2, m3, m4 }, extrema)
}

fn fold([a, b]: [F64x2; 2]) -> f64 {
    let [low, high] = a.add(b).to_array();
    low + high
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
                f64::from_bits((state >> 12) | 0x3ff0_0000_0000_0000) * 1000.0 - 999.0
            })
            .collect()
    }

    fn collected(values: &[f64], block: usize) -> Distribution {
        let mut collector = Collector::new();
        values.chunks(block).for_each(|b| collector.add(b, 0));
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
            let close =
                |a: f64, b: f64, scale: f64| assert!((a - b).abs() <= 1e-11 * scale.abs(), "block {block}: {a} {b}");
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
        all.extend([f64::MAX, f64::MIN_POSITIVE, 5e-324]);
        let found = collected(&all, 512).histogram;
        assert_eq!(found.buckets.iter().map(|b| b.count).sum::<u64>(), 5_003);
        assert!(found.buckets.windows(2).all(|w| w[0].key < w[1].key));
        for bucket in &found.buckets {
            let expected = all.iter().filter(|v| v.to_bits() >> 42 == u64::from(bucket.key)).count() as u64;
            assert_eq!(bucket.count, expected);
        }
    }

    #[test]
    fn zeros_given_as_a_number_are_zeros() {
        let mut all = values(3_000);
        let mut apart = Collector::new();
        apart.add(&all, 500);
        apart.add(&[], 7);
        let mut together = Collector::new();
        together.add(&all, 507);
        all.extend([0.0; 507]);
        let (apart, together) = (apart.finish(), together.finish());
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let m3 = all.iter().map(|v| (v - mean).powi(3)).sum::<f64>();
        assert!((together.moments.mean / mean - 1.0).abs() < 1e-12);
        assert!((together.moments.m3 - m3).abs() < 1e-10 * m3.abs());
        assert_eq!(apart.moments.n, together.moments.n);
        assert!((apart.moments.mean / together.moments.mean - 1.0).abs() < 1e-12);
        assert!((apart.moments.m2 / together.moments.m2 - 1.0).abs() < 1e-12);
        assert!((apart.moments.m4 / together.moments.m4 - 1.0).abs() < 1e-12);
        assert_eq!((apart.extrema.min, apart.extrema.max), (together.extrema.min, together.extrema.max));
        let counts = |d: &Distribution| d.histogram.buckets.iter().map(|b| (b.key, b.count)).collect::<Vec<_>>();
        assert_eq!(counts(&apart), counts(&together));
    }

    #[test]
    fn the_window_follows_values_to_either_side() {
        let mut collector = Collector::new();
        let all = [1.0, 1e9, 1e-9, 2.0, 1e300, 1e-300, 5e-324, f64::MAX];
        for value in all {
            collector.add(&[value], 1);
        }
        let found = collector.finish().histogram.buckets;
        let mut keys: Vec<u64> = all.iter().map(|v| v.to_bits() >> 42).collect();
        keys.sort_unstable();
        // The least of all shares the key of zero.
        assert_eq!(found.iter().map(|b| u64::from(b.key)).collect::<Vec<_>>(), keys);
        assert_eq!(found.iter().map(|b| b.count).sum::<u64>(), 16);
    }

    #[test]
    fn one_value_is_a_distribution() {
        let found = collected(&[3.0], 1);
        assert_eq!((found.moments.n, found.moments.mean, found.moments.m2), (1, 3.0, 0.0));
        assert_eq!(found.histogram.buckets.len(), 1);
    }
}
