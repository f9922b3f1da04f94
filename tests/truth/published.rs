//! The truth's own check: the published numbers of the quickstart's contract, obtained by others.

use serde_json::Value;

use crate::aggregate::Aggregate;
use crate::model::Insurance;

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, published {expected}");
}

#[test]
fn closed_forms_give_the_published_moments() {
    let published: Value = serde_json::from_str(include_str!("published.json")).unwrap();
    let number = |name: &str| published[name].as_f64().unwrap();
    let model = Insurance::quickstart();
    let [mean, variance, ..] = model.cumulants();
    near(mean, number("mean"), 1e-9, "mean");
    near(variance, number("variance"), 1e-4, "variance");
    near(model.p_zero(), number("p_zero"), 1e-9, "probability of no loss");
    near(model.claim.raw(1.0), 665.133_14, 1e-5, "expected claim");
    near(model.cat.raw(1.0), 26_163.351_86, 1e-5, "expected catastrophe");
    let (skewness, kurtosis) = model.shape();
    near(skewness, 8.34, 0.005, "skewness");
    near(kurtosis, 81.2, 0.05, "kurtosis");
}

#[test]
fn the_convolution_gives_the_published_distribution() {
    let published: Value = serde_json::from_str(include_str!("published.json")).unwrap();
    let model = Insurance::quickstart();
    let truth = Aggregate::new(&model, 20, 0.25);
    for (name, expected) in published["quantiles"].as_object().unwrap() {
        let expected = expected.as_f64().unwrap();
        let p = name.trim_start_matches('p').parse::<f64>().unwrap() / 100.0;
        // Published to five digits at least.
        near(truth.quantile(p), expected, (expected * 2e-5).max(0.25), name);
    }
    for (name, p) in [("tvar95", 0.95), ("tvar99", 0.99)] {
        let at = truth.quantile(p);
        let tail = at + truth.expect(|x| (x - at).max(0.0)) / (1.0 - p);
        near(tail, published[name].as_f64().unwrap(), 0.5, name);
    }
    near(truth.expect(|x| (x - 10_000.0).clamp(0.0, 40_000.0)), 374.02, 0.005, "layer 40,000 xs 10,000");
    // The grid against the closed forms: what the limit of 250,000 takes is far below these tolerances.
    let [mean, variance, ..] = model.cumulants();
    near(truth.expect(|x| x), mean, 1e-6, "mean on the grid");
    near(truth.expect(|x| (x - mean).powi(2)) / variance, 1.0, 1e-8, "variance on the grid");
    let (skewness, kurtosis) = model.shape();
    let scale = variance.sqrt();
    near(truth.expect(|x| ((x - mean) / scale).powi(3)), skewness, 1e-6, "skewness on the grid");
    near(truth.expect(|x| ((x - mean) / scale).powi(4)), kurtosis, 1e-5, "kurtosis on the grid");
    // Published as about 1e-13, which is below the rounding of a million points.
    assert!(truth.beyond() < 1e-9, "the aggregate limit is hit with {}", truth.beyond());
}
