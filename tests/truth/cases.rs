//! insurance.v1 at many arguments, from a contract to the answer, each statistic against the truth.

use forge_contract::fragment::Distribution;

use crate::expected::Expected;
use crate::model::{Insurance, Severity};
use crate::run;
use crate::sample::Sample;

/// Kolmogorov's statistic passes this with probability `2 exp(-2 x^2)`, 4e-7.
const DISTANCE_MAX: f64 = 2.78;
/// Relative width of half a histogram bucket, of 10 mantissa bits.
const HALF_BUCKET: f64 = 1.0 / 2048.0;
const MILLION: u64 = 1 << 20;

/// One contract and the grid its truth is computed on: `2^bits` points of distance `step`.
struct Case {
    model: Insurance,
    iterations: u64,
    bits: u32,
    step: f64,
}

impl Case {
    fn new(model: Insurance, bits: u32, step: f64) -> Self {
        Self { model, iterations: MILLION, bits, step }
    }

    fn iterations(mut self, iterations: u64) -> Self {
        self.iterations = iterations;
        self
    }

    fn check(&self, seed: &str) {
        let expected = Expected::new(self.model, self.iterations, self.bits, self.step);
        let run = run::run(&self.model, self.iterations, seed);
        assert_eq!(run.loss.moments.n, self.iterations);
        check_moments(&expected, &run.loss);
        check_buckets(&expected, &run.loss);
        crate::output::check(&expected, &run);
    }
}

fn check_moments(expected: &Expected, found: &Distribution) {
    let n = found.moments.n as f64;
    let variance = found.moments.m2 / n;
    expected.mean().hold("mean", found.moments.mean);
    expected.variance().hold("variance", variance);
    if let (Some(skewness), Some(kurtosis)) = (expected.skewness(), expected.kurtosis()) {
        skewness.hold("skewness", found.moments.m3 / n / variance.powf(1.5));
        kurtosis.hold("kurtosis", found.moments.m4 / n / (variance * variance));
    }
    assert!(found.extrema.min >= 0.0 && found.extrema.max <= expected.model.aggregate_limit);
}

fn check_buckets(expected: &Expected, found: &Distribution) {
    let sample = Sample::new(found);
    expected.zero().hold("share of years without loss", sample.zero());
    let distance = sample.distance(&expected.grid, expected.grid.end());
    assert!(distance < DISTANCE_MAX, "Kolmogorov distance {distance}");
    for (from, width) in [(0.0, 500.0), (1_000.0, 4_000.0), (10_000.0, 40_000.0)] {
        expected.layer(from, width).widened(HALF_BUCKET).hold("layer", sample.layer(from, width));
    }
}

fn quickstart() -> Insurance {
    Insurance::quickstart()
}

#[test]
fn the_quickstarts_contract() {
    Case::new(quickstart(), 19, 0.5).iterations(1_000_000).check("ROOT_SEED_QUICKSTART");
}

#[test]
fn claims_only() {
    Case::new(Insurance { cat_prob: 0.0, ..quickstart() }, 19, 0.5).check("claims only");
}

#[test]
fn catastrophes_only() {
    Case::new(Insurance { claim_freq: 0.0, cat_prob: 0.3, ..quickstart() }, 18, 1.0).check("catastrophes only");
}

#[test]
fn a_catastrophe_every_year() {
    Case::new(Insurance { cat_prob: 1.0, ..quickstart() }, 18, 1.0).check("every year");
}

#[test]
fn neither_claims_nor_catastrophes() {
    let model = Insurance { claim_freq: 0.0, cat_prob: 0.0, ..quickstart() };
    Case::new(model, 10, 1000.0).iterations(100_000).check("nothing");
}

#[test]
fn a_tiny_policy_limit() {
    Case::new(quickstart().policy_limit(0.5), 12, 0.125).check("tiny");
}

#[test]
fn no_cover_at_all() {
    let nothing = quickstart().policy_limit(0.0);
    Case::new(nothing, 10, 1.0).iterations(100_000).check("no cover");
    Case::new(Insurance { aggregate_limit: 0.0, ..quickstart() }, 18, 1.0).iterations(100_000).check("no cover");
}

#[test]
fn limits_out_of_reach() {
    let model = Insurance { aggregate_limit: 1e18, ..quickstart().policy_limit(1e15) };
    Case::new(model, 19, 4.0).check("huge");
}

#[test]
fn an_aggregate_limit_that_binds() {
    Case::new(Insurance { aggregate_limit: 5_000.0, ..quickstart() }, 16, 0.25).check("binds");
    Case::new(Insurance { aggregate_limit: 60_000.0, cat_prob: 0.5, ..quickstart() }, 19, 0.5).check("binds");
}

#[test]
fn a_claim_in_a_hundred_years() {
    Case::new(Insurance { claim_freq: 0.01, ..quickstart() }, 18, 0.5).check("rare");
}

#[test]
fn five_hundred_claims_a_year() {
    let model = Insurance { claim_freq: 500.0, aggregate_limit: 1e9, ..quickstart() };
    Case::new(model, 18, 4.0).iterations(1 << 17).check("many");
    Case::new(Insurance { aggregate_limit: 340_000.0, ..model }, 18, 4.0).iterations(1 << 17).check("many, capped");
}

#[test]
fn small_and_certain_claims() {
    // On the grid, so that many claims stay on it.
    let certain = Severity { mu: 160.0f64.ln(), sigma: 0.0, cap: 50_000.0 };
    Case::new(Insurance { claim: certain, ..quickstart() }, 18, 0.5).check("certain");
    let narrow = Severity { mu: 3.0, sigma: 0.1, cap: 50_000.0 };
    let cat = Severity { mu: 6.0, sigma: 0.2, cap: 50_000.0 };
    Case::new(Insurance { claim: narrow, cat, ..quickstart() }, 17, 0.02).check("narrow");
}
