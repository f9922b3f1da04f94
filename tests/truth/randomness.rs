//! Counts, seeds and streams: what a wrong generator or a shared stream would show.

use crate::model::{Insurance, Severity};
use crate::run;
use crate::sample::Sample;

/// Claims that all cost exactly one: the year's loss is the number of claims.
fn counting(claim_freq: f64) -> Insurance {
    let claim = Severity { mu: 50.0, sigma: 0.1, cap: 1.0 };
    Insurance { claim_freq, claim, cat_prob: 0.0, cat: claim, aggregate_limit: 1e9 }
}

/// Pearson's chi-square of counts against probabilities, neighbours joined until five are expected; and its degrees of
/// freedom.
fn chi_square(found: &[f64], probabilities: impl Fn(usize) -> f64) -> (f64, f64) {
    let years: f64 = found.iter().sum();
    let (mut sum, mut cells) = (0.0, 0.0);
    let (mut joined, mut expected, mut left) = (0.0, 0.0, 1.0);
    for (k, count) in found.iter().enumerate() {
        joined += count;
        expected += probabilities(k) * years;
        left -= probabilities(k);
        if expected >= 5.0 && left * years >= 5.0 {
            sum += (joined - expected).powi(2) / expected;
            cells += 1.0;
            (joined, expected) = (0.0, 0.0);
        }
    }
    expected += left.max(0.0) * years;
    (sum + (joined - expected).powi(2) / expected, cells)
}

/// Five standard deviations of a normal, by E. B. Wilson and M. M. Hilferty, 1931.
#[track_caller]
fn likely(chi_square: f64, freedom: f64, what: &str) {
    let spread = 2.0 / (9.0 * freedom);
    let z = ((chi_square / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
    assert!(z.abs() < 5.0, "{what}: chi-square {chi_square} of {freedom} degrees of freedom");
}

#[test]
fn the_number_of_claims_is_poisson() {
    for (freq, years) in [(0.01, 1 << 20), (0.7, 1 << 20), (2.0, 1 << 20), (29.5, 1 << 18), (500.0, 1 << 16)] {
        let found = Sample::new(&run::run(&counting(freq), years, "counts").loss).whole(1024);
        // exp(-500) is a normal double; the logarithm of the factorial is a sum.
        let mut factorial = vec![0.0; 1024];
        (1..1024).for_each(|k| factorial[k] = factorial[k - 1] + (k as f64).ln());
        let probability = |k: usize| (k as f64 * freq.ln() - freq - factorial[k]).exp();
        let (sum, freedom) = chi_square(&found, probability);
        assert!(freedom >= 2.0);
        likely(sum, freedom, &format!("claims at {freq}"));
    }
}

#[test]
fn catastrophes_have_their_probability() {
    for probability in [1e-4, 0.02, 0.3, 0.999_9] {
        let model = Insurance { cat_prob: probability, ..counting(0.0) };
        let found = Sample::new(&run::run(&model, 1 << 20, "chances").loss).whole(2);
        let (sum, _) = chi_square(&found, |k| if k == 0 { 1.0 - probability } else { probability });
        // Of one degree of freedom: a normal's square.
        assert!(sum < 25.0, "probability {probability}: chi-square {sum}");
    }
}

#[test]
fn years_without_loss_differ_from_unit_to_unit_as_they_should() {
    let model = Insurance::quickstart();
    let units = run::units(&model, 64 << 16, "units");
    let p = model.p_zero();
    let sum: f64 = units
        .iter()
        .map(|unit| {
            let n = unit.moments.n as f64;
            (Sample::new(unit).zero() * n - n * p).powi(2) / (n * p * (1.0 - p))
        })
        .sum();
    likely(sum, units.len() as f64, "years without loss per unit");
}

#[test]
fn units_and_seeds_have_streams_of_their_own() {
    let model = Insurance::quickstart();
    let one = run::units(&model, 8 << 16, "one");
    let other = run::units(&model, 8 << 16, "other");
    for (at, unit) in one.iter().enumerate() {
        assert!(
            one.iter().skip(at + 1).chain(&other).all(|u| u.histogram != unit.histogram && u.moments != unit.moments)
        );
    }
    assert_eq!(one, run::units(&model, 8 << 16, "one"), "the same seed gives the same bits");
}

#[test]
fn means_of_different_units_are_independent() {
    // Neighbouring units and equal units of neighbouring seeds: a stream used twice would correlate them wholly.
    let model = Insurance::quickstart();
    let mean = model.cumulants()[0];
    let runs = ["a", "b"].map(|seed| run::units(&model, 64 << 16, seed));
    let deviation = |run: usize, unit: usize| runs[run][unit].moments.mean - mean;
    let scale = (model.cumulants()[1] / 65_536.0).sqrt();
    let neighbours: f64 =
        (0..63).map(|u| deviation(0, u) * deviation(0, u + 1)).sum::<f64>() / (63.0f64.sqrt() * scale * scale);
    let seeds: f64 = (0..64).map(|u| deviation(0, u) * deviation(1, u)).sum::<f64>() / (64.0f64.sqrt() * scale * scale);
    assert!(neighbours.abs() < 5.0 && seeds.abs() < 5.0, "{neighbours} {seeds}");
}
