//! Shards whose mean lies oddly far from that of all others: advice for people, never a verdict.
//!
//! **Source**: Welch's test of two means with unequal variances (Welch 1947), each shard against the rest; the tail of
//! the normal distribution is bounded by `2 exp(-z^2 / 2)`, and Bonferroni's correction divides the level by the number
//! of shards. Means of heavy tails are far from normal: what stands out is worth a look, no more.

use forge_contract::AgentId;
use forge_contract::fragment::{Fragment, Moments, Part};
use forge_contract::manifest::PartSpec;
use serde::{Deserialize, Serialize};

/// Of so many jobs without any fault one may have an outlier.
const PER_LEVEL: u64 = 1_000;
/// Outliers told at most.
const OUTLIERS_MAX: usize = 16;
/// Values of a shard at least: below, a mean says little.
const VALUES_MIN: u64 = 30;

/// A shard whose mean stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlier {
    /// Index of the stage in the plan.
    pub stage: u32,
    /// Index of the shard in the stage.
    pub shard: u32,
    /// Whose answer it is.
    pub agent: AgentId,
    /// Distance from the mean of the others in standard errors, thousandths; negative below it.
    pub z_milli: i64,
}

/// One shard's first shown moments.
#[derive(Clone, Copy, Debug)]
struct Seen {
    shard: u32,
    agent: AgentId,
    n: u64,
    mean: f64,
    m2: f64,
}

/// The means of a stage's shards as they are accepted.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    seen: Vec<Seen>,
}

impl Screen {
    /// Notes an accepted shard where its fragment shows moments.
    pub fn add(&mut self, shard: u32, agent: AgentId, parts: &[PartSpec], fragment: &Fragment) {
        let mut shown = parts.iter().zip(&fragment.parts).filter(|(spec, _)| spec.shown);
        let moments: Option<Moments> = shown.find_map(|(_, named)| match &named.part {
            Part::Moments(moments) => Some(*moments),
            Part::Distribution(distribution) => Some(distribution.moments),
            _ => None,
        });
        if let Some(Moments { n, mean, m2, .. }) = moments.filter(|m| m.n >= VALUES_MIN) {
            self.seen.push(Seen { shard, agent, n, mean, m2 });
        }
    }

    /// The shards that stand out, most striking first; sixteen at most.
    ///
    /// Determinism: of the set of shards, not of the order in which they came.
    #[must_use]
    pub fn outliers(&self, stage: u32) -> Vec<Outlier> {
        let mut seen = self.seen.clone();
        seen.sort_by_key(|seen| seen.shard);
        let Some(whole) = seen.iter().copied().reduce(merged) else { return Vec::new() };
        // The next power of two above 2 / level: a logarithm that is the same on every machine, and a little strict.
        let odds = (seen.len() as u64).saturating_mul(2 * PER_LEVEL);
        let limit = (2.0 * core::f64::consts::LN_2 * f64::from(odds.ilog2() + 1)).sqrt();
        let mut found: Vec<Outlier> = seen
            .iter()
            .filter_map(|one| {
                let z = distance(one, &rest(&whole, one)?)?;
                #[expect(clippy::cast_possible_truncation, reason = "clamped")]
                let z_milli = (z * 1000.0).clamp(-1e15, 1e15) as i64;
                (z.abs() > limit).then_some(Outlier { stage, shard: one.shard, agent: one.agent, z_milli })
            })
            .collect();
        found.sort_by_key(|outlier| (core::cmp::Reverse(outlier.z_milli.unsigned_abs()), outlier.shard));
        found.truncate(OUTLIERS_MAX);
        found
    }
}

/// Both together (Chan, Golub and LeVeque 1979).
fn merged(a: Seen, b: Seen) -> Seen {
    let n = a.n + b.n;
    let (share, apart) = (b.n as f64 / n as f64, b.mean - a.mean);
    let m2 = a.m2 + b.m2 + apart * apart * a.n as f64 * share;
    Seen { n, mean: a.mean + apart * share, m2, ..a }
}

/// The whole without one of its pieces; `None` where nothing is left.
fn rest(whole: &Seen, one: &Seen) -> Option<Seen> {
    let n = whole.n.checked_sub(one.n).filter(|n| *n >= VALUES_MIN)?;
    let mean = (whole.mean * whole.n as f64 - one.mean * one.n as f64) / n as f64;
    let apart = one.mean - mean;
    let m2 = whole.m2 - one.m2 - apart * apart * (n as f64 * one.n as f64 / whole.n as f64);
    Some(Seen { n, mean, m2: m2.max(0.0), ..*whole })
}

/// Welch's statistic; `None` where it is not a number.
fn distance(one: &Seen, rest: &Seen) -> Option<f64> {
    let of_mean = |seen: &Seen| seen.m2 / (seen.n as f64 - 1.0) / seen.n as f64;
    let z = (one.mean - rest.mean) / (of_mean(one) + of_mean(rest)).sqrt();
    z.is_finite().then_some(z)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use forge_contract::Digest;

    /// Sums of twelve uniform numbers: normal enough, and nobody's generator but this one.
    fn values(seed: u64, count: usize, shift: f64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0 + shift).collect()
    }

    fn seen(shard: u32, values: &[f64]) -> Seen {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let m2 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Seen { shard, agent: AgentId(Digest::of(b"nobody")), n: values.len() as u64, mean, m2 }
    }

    fn screen(shifted: Option<u32>, by: f64, seed: u64) -> Screen {
        let shift = |shard| if Some(shard) == shifted { by } else { 0.0 };
        let one = |shard: u32| seen(shard, &values(seed + u64::from(shard), 400, shift(shard)));
        Screen { seen: (0..50).map(one).collect() }
    }

    #[test]
    fn a_shifted_shard_stands_out_and_honest_ones_do_not() {
        for seed in 0..200 {
            assert_eq!(screen(None, 0.0, seed * 1_000).outliers(0), [], "seed {seed}");
        }
        // 0.5 standard deviations are ten standard errors of 400 values.
        let found = screen(Some(17), 0.5, 1).outliers(3);
        assert_eq!(found.iter().map(|o| (o.stage, o.shard)).collect::<Vec<_>>(), [(3, 17)]);
        assert!((7_000..13_000).contains(&found[0].z_milli), "{found:?}");
    }

    #[test]
    fn the_rest_is_what_the_others_are_together() {
        let shards: Vec<Seen> = (0..5).map(|shard| seen(shard, &values(u64::from(shard), 100, 0.1))).collect();
        let whole = shards.iter().copied().reduce(merged).unwrap();
        let others = shards[1..].iter().copied().reduce(merged).unwrap();
        let left = rest(&whole, &shards[0]).unwrap();
        assert_eq!(left.n, others.n);
        assert!((left.mean - others.mean).abs() < 1e-12 && (left.m2 - others.m2).abs() < 1e-9);
        assert!(rest(&shards[0], &shards[0]).is_none());
    }

    #[test]
    fn the_order_of_arrival_changes_nothing() {
        let one = screen(Some(3), 1.0, 9);
        let mut other = one.clone();
        other.seen.reverse();
        assert_eq!(one.outliers(0), other.outliers(0));
    }
}
