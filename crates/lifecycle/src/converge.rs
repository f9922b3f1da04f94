//! Early ends: when a stop rule is looked at, on what, and what it says.
//!
//! A rule is looked at when exactly the first `n` units are folded, for the `n` of a fixed schedule: never on what
//! happens to have arrived. So every pool, every cut into shards and every replay ends at the same unit.
//!
//! **Determinism**: a function of the rule, the number of units and the folded prefixes; `+ - * /` and square roots
//! of IEEE 754 doubles alone.
//!
//! Source: the interval after each checkpoint is Chow and Robbins, On the asymptotic theory of fixed-width sequential
//! confidence intervals for the mean, 1965, with a first look that is not small; `docs/convergence.md` says what looking
//! often costs.

use forge_contract::fragment::{Fragment, Moments, Part};
use forge_contract::limits::SHARDS_MAX;
use forge_contract::stop::StopRule;
use serde::{Deserialize, Serialize};

/// Steps before the first checkpoint, and from one doubling to the next one's first: a quarter of a doubling each.
const STEPS: u64 = 4;

/// A stage's stop rule with its numbers filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedStop {
    /// The rule.
    pub rule: StopRule,
    /// The part it looks at.
    pub part: String,
    /// Units between the first checkpoints, a power of two: no shard is longer, so every checkpoint is a shard's end.
    pub step: u64,
    /// Items the work would have without the rule's budget.
    pub cap: u64,
}

/// Units between the first checkpoints of a stage of so many units: 4, or as many more as keep its shards countable.
#[must_use]
pub fn step(units: u64) -> u64 {
    units.div_ceil(SHARDS_MAX).next_power_of_two().max(STEPS)
}

impl PlannedStop {
    /// The first checkpoint after `done` units, the stage's end at the latest: 16, 20, 24, 28, 32, 40, 48, 56, 64, 80
    /// and so on, times a quarter of the step.
    #[must_use]
    pub fn checkpoint_after(&self, done: u64, units: u64) -> u64 {
        if !self.rule.has_target() {
            return units;
        }
        let first = self.step.saturating_mul(STEPS);
        if done < first {
            return first.min(units);
        }
        let doublings = (done / first.max(1)).max(1).ilog2();
        let stride = self.step.checked_shl(doublings).unwrap_or(u64::MAX).max(1);
        (done / stride + 1).saturating_mul(stride).min(units)
    }
}

/// Why a stage ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The interval is as narrow as wished.
    HalfWidth,
    /// The variance changed no more than wished.
    Variance,
    /// The budget is used up, and no target was reached.
    Budget,
    /// All the work is done, and no target was reached.
    Exhausted,
}

impl Reason {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HalfWidth => "half_width",
            Self::Variance => "variance",
            Self::Budget => "budget",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What was found at a checkpoint. A number that is not defined there (of one value, of a mean of zero) is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Values.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Their unbiased variance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// Half the width of the mean's interval at the rule's confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width: Option<f64>,
    /// The same as a share of the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Change of the variance since the checkpoint before, as a share of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_change: Option<f64>,
}

impl Measured {
    /// What these moments say of a rule, given the variance at the checkpoint before.
    #[must_use]
    pub fn of(rule: &StopRule, moments: &Moments, before: Option<f64>) -> Self {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let n = moments.n as f64;
        let variance = if moments.n > 1 { finite(moments.m2 / (n - 1.0)) } else { None };
        let half_width = variance.and_then(|variance| finite(rule.confidence.quantile() * (variance / n).sqrt()));
        let share = |part: Option<f64>, whole: f64| part.filter(|_| whole > 0.0).and_then(|part| finite(part / whole));
        Self {
            n: moments.n,
            mean: moments.mean,
            variance,
            half_width,
            relative: share(half_width, moments.mean.abs()),
            variance_change: before.and_then(|before| share(variance.map(|now| (now - before).abs()), before)),
        }
    }

    /// The target that is reached. Compared are the shares shown: what the answer states is what was decided by.
    fn reached(&self, rule: &StopRule) -> Option<Reason> {
        let within = |found: Option<f64>, target: Option<f64>| matches!((found, target), (Some(f), Some(t)) if f <= t);
        if within(self.relative, rule.half_width) {
            Some(Reason::HalfWidth)
        } else if within(self.variance_change, rule.variance_change) {
            Some(Reason::Variance)
        } else {
            None
        }
    }
}

/// Where a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedAt {
    /// Units done: `0 .. unit`.
    pub unit: u64,
    /// Items in them.
    pub items: u64,
}

/// How a stage with a stop rule ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Convergence {
    /// The stage.
    pub stage: String,
    /// The part looked at.
    pub part: String,
    /// The rule.
    pub rule: StopRule,
    /// Where it ended.
    pub stopped_at: StoppedAt,
    /// Why there.
    pub reason: Reason,
    /// What was found there.
    pub measured: Measured,
    /// Checkpoints looked at, this one included.
    pub checkpoints: u64,
}

/// A stage's rule, checkpoint by checkpoint.
#[derive(Clone, Debug)]
pub struct Watch {
    stop: PlannedStop,
    units: u64,
    at: u64,
    variance: Option<f64>,
    checkpoints: u64,
}

/// What a checkpoint says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopped {
    /// Units done.
    pub unit: u64,
    /// Why there.
    pub reason: Reason,
    /// What was found.
    pub measured: Measured,
    /// Checkpoints looked at.
    pub checkpoints: u64,
}

impl Watch {
    /// Before the first checkpoint of a stage of `units` units.
    #[must_use]
    pub fn new(stop: &PlannedStop, units: u64) -> Self {
        Self { at: stop.checkpoint_after(0, units), stop: stop.clone(), units, variance: None, checkpoints: 0 }
    }

    /// The checkpoint to come: units.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.at
    }

    /// The one after it.
    #[must_use]
    pub fn after_next(&self) -> u64 {
        self.stop.checkpoint_after(self.at, self.units)
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &StopRule {
        &self.stop.rule
    }

    /// Looks at the fragment of exactly the units before the checkpoint; `None` goes on to the next one.
    pub fn look(&mut self, prefix: &Fragment) -> Option<Stopped> {
        let moments = moments(prefix, &self.stop.part).unwrap_or(NOTHING);
        let measured = Measured::of(&self.stop.rule, &moments, self.variance);
        self.checkpoints += 1;
        let end = if self.at < self.units {
            None
        } else if self.stop.rule.budget.is_some_and(|budget| budget < self.stop.cap) {
            Some(Reason::Budget)
        } else {
            Some(Reason::Exhausted)
        };
        match measured.reached(&self.stop.rule).or(end) {
            Some(reason) => Some(Stopped { unit: self.at, reason, measured, checkpoints: self.checkpoints }),
            None => {
                self.variance = measured.variance;
                self.at = self.after_next();
                None
            }
        }
    }
}

const NOTHING: Moments = Moments { n: 0, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0 };

/// The moments of a part; `None` where it has none.
#[must_use]
pub fn moments(fragment: &Fragment, part: &str) -> Option<Moments> {
    match &fragment.parts.iter().find(|named| named.name == part)?.part {
        Part::Moments(moments) => Some(*moments),
        Part::Distribution(distribution) => Some(distribution.moments),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::stop::Confidence;
    use proptest::prelude::*;

    fn rule(half_width: Option<f64>, variance_change: Option<f64>) -> StopRule {
        StopRule { half_width, confidence: Confidence::P95, variance_change, budget: None }
    }

    fn planned(rule: StopRule, units: u64) -> PlannedStop {
        PlannedStop { rule, part: "loss".into(), step: step(units), cap: units }
    }

    fn schedule(units: u64) -> Vec<u64> {
        let stop = planned(rule(Some(0.1), None), units);
        let next = |at: &u64| (*at < units).then(|| stop.checkpoint_after(*at, units));
        core::iter::successors(next(&0), next).collect()
    }

    #[test]
    fn checkpoints_are_quarters_of_doublings() {
        let known = [16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256];
        assert_eq!(schedule(300), [&known[..], &[300]].concat());
        assert_eq!(schedule(1), [1]);
        assert_eq!(schedule(16), [16]);
        assert_eq!(schedule(17), [16, 17]);
        // A million units are cut into shards of 16 at most.
        assert_eq!((step(400_000), step(400_001), step(1_000_000)), (4, 8, 16));
        assert_eq!(schedule(1_000_000).iter().take(6).copied().collect::<Vec<_>>(), [64, 80, 96, 112, 128, 160]);
    }

    proptest! {
        #[test]
        fn every_checkpoint_is_the_end_of_a_shard(units in 1u64..=1_638_400_000) {
            let (step, all) = (step(units), schedule(units));
            prop_assert!(step.is_power_of_two() && units.div_ceil(step) <= SHARDS_MAX && step <= 1 << 14);
            prop_assert!(all.is_sorted_by(|a, b| a < b) && all.len() < 110);
            prop_assert_eq!(all.last(), Some(&units));
            prop_assert!(all.iter().all(|at| at.is_multiple_of(step) || *at == units));
            // Nobody waits for more than a quarter of what is done already.
            prop_assert!(all.iter().zip(all.iter().skip(1)).all(|(a, b)| (b - a) * 4 <= *a));
        }

        #[test]
        fn what_is_measured_is_what_the_values_give(values in prop::collection::vec(-50.0f64..100.0, 2..80)) {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let m2 = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let found = Measured::of(&rule(Some(0.1), None), &Moments { n: values.len() as u64, mean, m2, m3: 0.0, m4: 0.0 }, Some(2.0));
            let variance = m2 / (n - 1.0);
            prop_assert_eq!(found.variance, Some(variance));
            prop_assert_eq!(found.half_width, Some(1.959_963_984_540_054_2 * (variance / n).sqrt()));
            prop_assert_eq!(found.variance_change, Some((variance - 2.0).abs() / 2.0));
        }
    }

    fn at(n: u64, mean: f64, variance: f64) -> Fragment {
        let moments = Moments { n, mean, m2: variance * (n as f64 - 1.0), m3: 0.0, m4: 0.0 };
        Fragment { parts: vec![forge_contract::fragment::Named { name: "loss".into(), part: Part::Moments(moments) }] }
    }

    /// Looks at the same mean and variance at every checkpoint, 100 values a unit.
    fn run(stop: &PlannedStop, units: u64, mean: f64, variance: impl Fn(u64) -> f64) -> Stopped {
        let mut watch = Watch::new(stop, units);
        loop {
            let unit = watch.next();
            if let Some(stopped) = watch.look(&at(unit * 100, mean, variance(unit))) {
                return stopped;
            }
        }
    }

    #[test]
    fn a_rule_stops_at_the_first_checkpoint_where_it_holds() {
        // Half width 1.96 sqrt(v / n) <= 0.01 * 10, n = 100 units: 16 units suffice up to v = 4.16.
        let stop = planned(rule(Some(0.01), None), 1000);
        let stopped = run(&stop, 1000, -10.0, |_| 4.0);
        assert_eq!((stopped.unit, stopped.reason, stopped.checkpoints), (16, Reason::HalfWidth, 1));
        let stopped = run(&stop, 1000, 10.0, |_| 9.0);
        assert_eq!((stopped.unit, stopped.reason, stopped.checkpoints), (40, Reason::HalfWidth, 6));
        assert!(stopped.measured.relative.unwrap() <= 0.01);
        // Too wide for all the work there is.
        let stopped = run(&stop, 1000, 10.0, |_| 1e6);
        assert_eq!((stopped.unit, stopped.reason), (1000, Reason::Exhausted));
        // Reached exactly at the end is reached.
        let stopped = run(&planned(rule(Some(0.01), None), 36), 36, 10.0, |_| 9.0);
        assert_eq!((stopped.unit, stopped.reason), (36, Reason::HalfWidth));
    }

    #[test]
    fn variance_needs_two_checkpoints_and_either_target_suffices() {
        let stop = planned(rule(None, Some(0.05)), 1000);
        assert_eq!(run(&stop, 1000, 1.0, |_| 5.0).unit, 20, "one look has nothing to compare with");
        let falling = run(&stop, 1000, 1.0, |unit| 100.0 / unit as f64);
        assert_eq!((falling.unit, falling.reason), (1000, Reason::Exhausted));
        let both = planned(rule(Some(0.01), Some(0.05)), 1000);
        assert_eq!(run(&both, 1000, 10.0, |_| 4.0).reason, Reason::HalfWidth);
        assert_eq!(run(&both, 1000, 0.1, |_| 4.0).reason, Reason::Variance);
    }

    #[test]
    fn what_is_not_defined_never_holds() {
        let stop = planned(rule(Some(1.0), Some(1.0)), 64);
        // All values zero so far: a rare event that has not happened yet, no reason to end.
        let zeros = run(&stop, 64, 0.0, |_| 0.0);
        assert_eq!((zeros.unit, zeros.reason), (64, Reason::Exhausted));
        assert_eq!((zeros.measured.relative, zeros.measured.half_width), (None, Some(0.0)));
        let around_zero = run(&planned(rule(Some(1.0), None), 64), 64, 0.0, |_| 4.0);
        assert_eq!((around_zero.reason, around_zero.measured.relative), (Reason::Exhausted, None));
        let tiny = Measured::of(
            &rule(Some(1.0), None),
            &Moments { n: 10, mean: f64::MIN_POSITIVE / 8.0, m2: 1e300, m3: 0.0, m4: 0.0 },
            None,
        );
        assert_eq!(tiny.relative, None, "beyond every double");
        let one = Measured::of(&rule(Some(1.0), None), &Moments { n: 1, mean: 5.0, m2: 0.0, m3: 0.0, m4: 0.0 }, None);
        assert_eq!((one.variance, one.half_width), (None, None));
    }

    #[test]
    fn a_budget_below_the_work_names_itself() {
        let with_budget = |rule: StopRule, cap| PlannedStop {
            rule: StopRule { budget: Some(30), ..rule },
            part: "loss".into(),
            step: 4,
            cap,
        };
        let stopped = run(&with_budget(rule(None, None), 100), 30, 10.0, |_| 1.0);
        assert_eq!((stopped.unit, stopped.reason, stopped.checkpoints), (30, Reason::Budget, 1));
        assert_eq!(run(&with_budget(rule(None, None), 30), 30, 10.0, |_| 1.0).reason, Reason::Exhausted);
        assert_eq!(run(&with_budget(rule(Some(0.5), None), 100), 30, 10.0, |_| 1.0).reason, Reason::HalfWidth);
    }
}
