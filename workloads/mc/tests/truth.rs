//! insurance.v1 against closed forms: five standard errors, plus a bucket where quantiles are read from the histogram.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use forge_sdk_guest::Distribution;
use forge_sdk_guest::distribution::merged;
use forge_sdk_guest::rng::Generator;
use kernel_mc::{Arguments, simulate};

const UNIT: u64 = 65_536;
const SIGMAS: f64 = 5.0;

fn quickstart() -> Arguments {
    Arguments {
        iterations: 1_000_000,
        claim_freq: 2.0,
        claim_severity_mu: 6.0,
        claim_severity_sig: 1.0,
        cat_prob: 0.02,
        cat_mu: 10.0,
        cat_sig: 1.5,
        policy_limit: 50_000.0,
        aggregate_limit: 250_000.0,
    }
}

/// Counts by bucket, and moments, of several units.
struct Sample {
    whole: Distribution,
    counts: std::collections::BTreeMap<u32, u64>,
}

impl Sample {
    fn draw(arguments: &Arguments, units: u64) -> Self {
        let key = [arguments.claim_freq.to_bits().to_le_bytes()[7]; 32];
        let mut counts = std::collections::BTreeMap::new();
        let mut whole: Option<Distribution> = None;
        for unit in 0..units {
            let found = simulate(arguments, &mut Generator::new(&key, unit), UNIT).unwrap();
            let total: u64 = found.histogram.buckets.iter().map(|b| b.count).sum();
            assert_eq!((found.moments.n, total), (UNIT, UNIT));
            assert!(found.histogram.buckets.windows(2).all(|w| w[0].key < w[1].key));
            found.histogram.buckets.iter().for_each(|b| *counts.entry(b.key).or_default() += b.count);
            whole = Some(match whole {
                None => found,
                Some(mut sum) => {
                    sum.moments = merged(&sum.moments, &found.moments);
                    sum.extrema.min = sum.extrema.min.min(found.extrema.min);
                    sum.extrema.max = sum.extrema.max.max(found.extrema.max);
                    sum
                }
            });
        }
        Self { whole: whole.unwrap(), counts }
    }

    fn n(&self) -> f64 {
        self.whole.moments.n as f64
    }

    fn variance(&self) -> f64 {
        self.whole.moments.m2 / self.n()
    }

    /// How many values lie in buckets that begin at `from` or above.
    fn at_least(&self, from: f64) -> f64 {
        self.counts.range(key(from)..).map(|(_, count)| *count).sum::<u64>() as f64
    }

    fn check_share_at_least(&self, from: f64, truth: f64, what: &str) {
        let error = (truth * (1.0 - truth) * self.n()).sqrt();
        let found = self.at_least(from);
        assert!((found - truth * self.n()).abs() <= SIGMAS * error + 1.0, "{what}: {found} of {}", truth * self.n());
    }

    fn check_mean_and_variance(&self, mean: f64, variance: f64, what: &str) {
        let m = &self.whole.moments;
        let mean_error = (variance / self.n()).sqrt();
        assert!((m.mean - mean).abs() <= SIGMAS * mean_error + 1e-9 * mean, "{what}: mean {} not {mean}", m.mean);
        let fourth = m.m4 / self.n();
        let variance_error = ((fourth - self.variance().powi(2)) / self.n()).sqrt();
        let found = self.variance();
        assert!(
            (found - variance).abs() <= SIGMAS * variance_error + 1e-9 * variance,
            "{what}: variance {found} not {variance} within {variance_error}"
        );
    }
}

fn key(value: f64) -> u32 {
    u32::try_from(value.to_bits() >> 42).unwrap()
}

/// P(Z <= z).
fn phi(z: f64) -> f64 {
    0.5 * libm::erfc(-z / 2.0_f64.sqrt())
}

/// First and second moment of `min(exp(mu + sigma Z), limit)`.
fn limited(mu: f64, sigma: f64, limit: f64) -> (f64, f64) {
    if sigma == 0.0 {
        let amount = mu.exp().min(limit);
        return (amount, amount * amount);
    }
    let z = (limit.ln() - mu) / sigma;
    let below = |k: f64| (k * mu + 0.5 * (k * sigma).powi(2)).exp() * phi(z - k * sigma);
    (below(1.0) + limit * phi(-z), below(2.0) + limit * limit * phi(-z))
}

/// Mean and variance where the aggregate limit is never met.
fn truth(a: &Arguments) -> (f64, f64) {
    let (claim, claim2) = limited(a.claim_severity_mu, a.claim_severity_sig, a.policy_limit);
    let (cat, cat2) = limited(a.cat_mu, a.cat_sig, a.policy_limit);
    (a.claim_freq * claim + a.cat_prob * cat, a.claim_freq * claim2 + a.cat_prob * cat2 - (a.cat_prob * cat).powi(2))
}

#[test]
fn the_formulas_give_the_published_numbers() {
    let (mean, variance) = truth(&quickstart());
    assert!((mean - 1853.5333).abs() < 1e-4);
    assert!((variance - 22_925_870.0).abs() < 1.0);
}

#[test]
fn mean_and_variance_follow_the_closed_form() {
    let q = quickstart();
    let free = Arguments { aggregate_limit: 1e18, ..q.clone() };
    let cases = [
        ("quickstart", q.clone(), 40),
        ("rare claims", Arguments { claim_freq: 0.01, ..free.clone() }, 40),
        ("many claims", Arguments { claim_freq: 500.0, ..free.clone() }, 2),
        ("a fractional mean between tables", Arguments { claim_freq: 37.25, ..free.clone() }, 4),
        ("claims alone", Arguments { cat_prob: 0.0, ..free.clone() }, 40),
        ("catastrophes alone", Arguments { claim_freq: 0.0, cat_prob: 0.3, ..free.clone() }, 40),
        ("a catastrophe every year", Arguments { cat_prob: 1.0, ..free.clone() }, 20),
        ("rare catastrophes", Arguments { claim_freq: 0.0, cat_prob: 1e-3, ..free.clone() }, 80),
        ("a tiny limit", Arguments { policy_limit: 1e-6, ..free.clone() }, 10),
        ("no limit", Arguments { policy_limit: 1e18, cat_sig: 0.5, claim_severity_sig: 0.5, ..free.clone() }, 40),
        ("fixed amounts", Arguments { claim_severity_sig: 0.0, cat_sig: 0.0, ..free.clone() }, 20),
        ("almost fixed amounts", Arguments { claim_freq: 0.0, cat_prob: 1.0, cat_sig: 1e-5, ..free.clone() }, 20),
        ("a wide law under a limit", Arguments { claim_severity_sig: 10.0, ..free.clone() }, 20),
        ("cents", Arguments { claim_severity_mu: -90.0, cat_prob: 0.0, ..free }, 20),
    ];
    for (what, arguments, units) in cases {
        let (mean, variance) = truth(&arguments);
        let sample = Sample::draw(&arguments, units);
        // Of a variance of nothing but rounding there is nothing to test.
        sample.check_mean_and_variance(mean, variance, what);
        let none = (-arguments.claim_freq).exp() * (1.0 - arguments.cat_prob);
        sample.check_share_at_least(f64::MIN_POSITIVE, 1.0 - none, what);
    }
}

#[test]
fn quantiles_follow_the_convolution() {
    // Quantile and its standard error at 1e6, from the FFT convolution that WORKLOADS documents.
    let table = [
        (0.5, 907.34, 1.46),
        (0.9, 3423.5, 5.5),
        (0.95, 4889.2, 11.0),
        (0.99, 23_679.0, 396.0),
        (0.995, 50_117.6, 26.0),
        (0.999, 52_407.0, 45.0),
    ];
    let sample = Sample::draw(&quickstart(), 60);
    let scale = (1e6 / sample.n()).sqrt();
    for (p, truth, error) in table {
        let margin = SIGMAS * error * scale + truth / 1024.0;
        let below = |x: f64| 1.0 - sample.at_least(x) / sample.n();
        assert!(below(truth - margin) <= p && p <= below(truth + margin + truth / 1024.0), "p{p}");
    }
}

#[test]
fn the_year_is_capped() {
    let capped = Arguments { aggregate_limit: 3000.0, ..quickstart() };
    let sample = Sample::draw(&capped, 10);
    let free = Sample::draw(&quickstart(), 10);
    assert_eq!(sample.whole.extrema.max, 3000.0);
    // The same draws: what reached the cap is now all in the cap's bucket.
    assert_eq!(sample.at_least(3000.0), free.at_least(3000.0));
    assert_eq!(sample.at_least(1000.0), free.at_least(1000.0));
    for limits in [(0.0, 1.0), (1.0, 0.0)] {
        let nothing = Arguments { policy_limit: limits.0, aggregate_limit: limits.1, ..quickstart() };
        let found = Sample::draw(&nothing, 1).whole;
        assert_eq!((found.extrema.max, found.moments.mean, found.histogram.buckets.len()), (0.0, 0.0, 1));
    }
}

#[test]
fn numbers_of_claims_are_poisson() {
    for (mean, units) in [(0.01, 20), (0.7, 20), (2.0, 40), (12.5, 10), (30.0, 10), (200.0, 2), (1500.0, 1)] {
        // Each claim is 1, so a year's loss is its number of claims, and buckets below 2048 hold one integer each.
        let ones = Arguments {
            claim_freq: mean,
            claim_severity_mu: 0.0,
            claim_severity_sig: 0.0,
            cat_prob: 0.0,
            policy_limit: 1.0,
            aggregate_limit: 1e18,
            ..quickstart()
        };
        let sample = Sample::draw(&ones, units);
        let (mut square, mut cells) = (0.0, 0.0);
        for k in 0..2047_u32 {
            let expected = (f64::from(k) * mean.ln() - mean - libm::lgamma(f64::from(k) + 1.0)).exp() * sample.n();
            let found = sample.counts.get(&key(f64::from(k))).copied().unwrap_or(0) as f64;
            if expected >= 10.0 {
                square += (found - expected).powi(2) / expected;
                cells += 1.0;
            } else {
                assert!(found <= expected + 8.0 * (expected + 1.0).sqrt(), "mean {mean}: {found} years of {k} claims");
            }
        }
        let z = (square - (cells - 1.0)) / (2.0 * (cells - 1.0_f64).max(1.0)).sqrt();
        assert!(z.abs() < SIGMAS + 2.0 / cells, "mean {mean}: chi-square {square} of {cells} cells");
        sample.check_mean_and_variance(mean, mean, "claims");
    }
    let most = Arguments {
        claim_freq: 10_000.0,
        claim_severity_mu: 0.0,
        claim_severity_sig: 0.0,
        cat_prob: 0.0,
        ..quickstart()
    };
    let mut years = Generator::new(&[1; 32], 0);
    let found = simulate(&Arguments { aggregate_limit: 1e18, ..most }, &mut years, 4096).unwrap();
    assert!((found.moments.mean - 10_000.0).abs() < SIGMAS * 100.0 / 64.0);
    assert!((found.moments.m2 / 4096.0 / 10_000.0 - 1.0).abs() < SIGMAS * (2.0_f64 / 4096.0).sqrt());
}

#[test]
fn amounts_are_lognormal_far_into_both_tails() {
    let one_each = Arguments {
        claim_freq: 0.0,
        cat_prob: 1.0,
        cat_mu: 0.0,
        cat_sig: 1.0,
        policy_limit: 1e18,
        aggregate_limit: 1e18,
        ..quickstart()
    };
    // Enough that one layer of 256 with the wrong shape stands out.
    let sample = Sample::draw(&one_each, 1500);
    // Every hundredth from -5 to 5, through the ziggurat's layers and past its tail at 3.654.
    for step in -500..=500 {
        let bound = f64::from_bits(u64::from(key((f64::from(step) / 100.0).exp())) << 42);
        sample.check_share_at_least(bound, phi(-bound.ln()), &format!("beyond {}", bound.ln()));
    }
    let (least, greatest) = (sample.whole.extrema.min.ln(), sample.whole.extrema.max.ln());
    assert!((-7.2..-5.0).contains(&least) && (5.0..7.2).contains(&greatest), "{least} {greatest}");
}

#[test]
fn a_unit_is_a_function_of_key_index_and_arguments() {
    let unit = |arguments: &Arguments, key: u8, index: u64, years: u64| {
        let found = simulate(arguments, &mut Generator::new(&[key; 32], index), years).unwrap();
        (found.moments.mean.to_bits(), found.moments.m4.to_bits(), found.histogram.buckets.len())
    };
    let q = quickstart();
    let first = unit(&q, 1, 0, UNIT);
    assert_eq!(first, unit(&q, 1, 0, UNIT));
    assert_ne!(first, unit(&q, 2, 0, UNIT));
    assert_ne!(first, unit(&q, 1, 1, UNIT));
    assert_ne!(first, unit(&Arguments { claim_freq: 2.1, ..q.clone() }, 1, 0, UNIT));
    for years in [1, 2, 15, 16, 17, 2047, 2048, 2049, 5000] {
        let found = simulate(&q, &mut Generator::new(&[1; 32], 0), years).unwrap();
        assert_eq!(found.moments.n, years);
        assert_eq!(found.histogram.buckets.iter().map(|b| b.count).sum::<u64>(), years);
    }
}

#[test]
fn arguments_out_of_range_are_refused() {
    let q = quickstart();
    let bad = [
        Arguments { claim_freq: -1.0, ..q.clone() },
        Arguments { claim_freq: 10_001.0, ..q.clone() },
        Arguments { claim_severity_sig: f64::NAN, ..q.clone() },
        Arguments { cat_prob: 1.000_001, ..q.clone() },
        Arguments { policy_limit: f64::INFINITY, ..q.clone() },
        Arguments { aggregate_limit: -0.5, ..q.clone() },
    ];
    for arguments in bad {
        let refused = simulate(&arguments, &mut Generator::new(&[1; 32], 0), 10);
        assert!(matches!(refused, Err(forge_sdk_guest::Failure::Arguments(_))), "{arguments:?}");
    }
    assert!(simulate(&q, &mut Generator::new(&[1; 32], 0), 0).is_err());
}
