//! A simulated distribution, read without the platform's own reduction.

use forge_contract::fragment::{Distribution, Histogram};

use crate::aggregate::Aggregate;

/// Buckets by rising value: lower edge, upper edge, years.
pub struct Sample {
    buckets: Vec<(f64, f64, f64)>,
    years: f64,
}

impl Sample {
    pub fn new(found: &Distribution) -> Self {
        let bits = found.histogram.mantissa_bits;
        let buckets = found.histogram.by_value().map(|(key, count)| {
            let (from, to) = Histogram::edges(key, bits);
            (from, to, count as f64)
        });
        Self { buckets: buckets.collect(), years: found.moments.n as f64 }
    }

    /// Share of years without loss.
    pub fn zero(&self) -> f64 {
        // The bucket of zero ends at the smallest normal double or below: no loss but zero is in it.
        self.buckets.first().map_or(0.0, |(from, _, count)| if *from == 0.0 { count / self.years } else { 0.0 })
    }

    /// Mean loss to a layer, each year at the middle of its bucket.
    pub fn layer(&self, from: f64, width: f64) -> f64 {
        let middle = |low: f64, high: f64| if low == 0.0 { 0.0 } else { 0.5 * (low + high) };
        let share = |(low, high, count): &(f64, f64, f64)| (middle(*low, *high) - from).clamp(0.0, width) * count;
        self.buckets.iter().map(share).sum::<f64>() / self.years
    }

    /// Greatest distance of the empirical distribution from the truth at the buckets' edges, times the square root of
    /// the number of years (A. Kolmogorov, 1933); edges past `end` are left out.
    pub fn distance(&self, truth: &Aggregate, end: f64) -> f64 {
        let (mut below, mut worst) = (0.0, 0.0f64);
        for (from, _, count) in self.buckets.iter().filter(|(from, ..)| *from > 0.0 && *from < end) {
            if below == 0.0 {
                below = self.buckets.iter().take_while(|(low, ..)| low < from).map(|(.., count)| count).sum();
            }
            let (least, greatest) = truth.below(*from);
            let share = below / self.years;
            worst = worst.max(least - share).max(share - greatest);
            below += count;
        }
        worst * self.years.sqrt()
    }

    /// Years at each of the whole numbers `0 .. count`, for losses that are whole numbers.
    pub fn whole(&self, count: usize) -> Vec<f64> {
        let mut years = vec![0.0; count];
        for (from, _, found) in &self.buckets {
            assert!(from.fract() == 0.0 && *from < count as f64, "a loss of {from} is no whole number below {count}");
            years[*from as usize] += found;
        }
        years
    }
}
