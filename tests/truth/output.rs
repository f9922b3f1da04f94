//! The client's numbers, `hub.output.loss`, against the truth.

use serde_json::Value;

use crate::expected::Expected;
use crate::run::Run;

/// The relative error that the output states of its quantiles: half a bucket of 10 mantissa bits.
const QUANTILE_ERROR: f64 = 1.0 / 2048.0;
const QUANTILES: [(&str, f64); 7] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.5", 0.995), ("p99.9", 0.999)];

pub fn check(expected: &Expected, run: &Run) {
    let loss = &run.output["loss"];
    let n = number(loss, "n");
    assert_eq!(run.loss.moments.n as f64, n);
    check_moments(expected, loss, n);
    check_tail(expected, loss);
    check_exceedance(expected, loss);
    check_plot(expected, loss, n);
}

fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {of}"))
}

#[track_caller]
fn same(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{what}: {found}, not {expected}");
}

fn check_moments(expected: &Expected, loss: &Value, n: f64) {
    let (mean, variance) = (number(loss, "mean"), number(loss, "variance"));
    expected.mean().hold("mean", mean);
    expected.variance().hold("variance", variance);
    same(number(loss, "std_dev"), variance.sqrt(), "standard deviation");
    let error = (variance / n).sqrt();
    same(number(loss, "std_error"), error, "standard error");
    // 95% of a normal lies within 1.959964 standard deviations.
    for (end, side) in [(0, -1.0), (1, 1.0)] {
        same(loss["ci95"][end].as_f64().unwrap(), mean + side * 1.959_963_984_540_054 * error, "end of the interval");
    }
    match (expected.skewness(), expected.kurtosis()) {
        (Some(skewness), Some(kurtosis)) => {
            skewness.hold("skewness", number(loss, "skewness"));
            kurtosis.hold("kurtosis", number(loss, "kurtosis"));
        }
        _ if expected.variance == 0.0 => assert!(loss["skewness"].is_null() && loss["kurtosis"].is_null()),
        _ => (),
    }
    let (least, greatest) = (number(loss, "min"), number(loss, "max"));
    assert!(0.0 <= least && least <= greatest && greatest <= expected.model.aggregate_limit);
    let often = expected.grid.beyond() * n > 50.0;
    assert!(!expected.grid.closed || !often || greatest == expected.model.aggregate_limit, "the limit is reached");
    assert!(expected.model.p_zero() * n < 50.0 || least == 0.0, "there are years without loss");
    assert_eq!(loss["unit"], "currency");
}

fn check_tail(expected: &Expected, loss: &Value) {
    assert_eq!(number(loss, "quantile_relative_error"), QUANTILE_ERROR);
    for (name, p) in QUANTILES {
        expected.quantile(p).widened(QUANTILE_ERROR).hold(name, number(loss, name));
    }
    for (name, p) in [("tvar95", 0.95), ("tvar99", 0.99)] {
        expected.tail_mean(p).widened(QUANTILE_ERROR).hold(name, number(loss, name));
    }
    expected.zero().hold("share of years without loss", number(loss, "share_zero"));
}

fn check_exceedance(expected: &Expected, loss: &Value) {
    let points: Vec<(f64, f64)> = loss["exceedance"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (number(point, "loss"), number(point, "probability")))
        .collect();
    assert!(expected.variance == 0.0 || points.len() > 1, "a curve has points");
    for (at, probability) in &points {
        expected.above(*at).hold("exceedance", *probability);
    }
    assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1), "the curve falls");
}

fn check_plot(expected: &Expected, loss: &Value, n: f64) {
    let list = |name: &str| -> Vec<f64> {
        let values = loss["histogram"][name].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let (edges, counts) = (list("edges"), list("counts"));
    assert_eq!(edges.len(), counts.len() + 1);
    assert_eq!(counts.iter().sum::<f64>(), n);
    let mut above = n;
    for (edge, count) in edges.iter().skip(1).zip(&counts) {
        above -= count;
        if above > 0.0 {
            expected.above(*edge).hold("share above a bin", above / n);
        }
    }
}
