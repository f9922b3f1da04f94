#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]
// Expected values of tests, compared within a tolerance.
#![allow(clippy::disallowed_methods)]
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BITS: u8 = 10;

fn of(values: &[f64]) -> Distribution {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(Histogram::key(*value, BITS)).or_insert(0u64) += 1;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let power = |k: i32| values.iter().map(|x| (x - mean).powi(k)).sum::<f64>();
    Distribution {
        moments: Moments { n: values.len() as u64, mean, m2: power(2), m3: power(3), m4: power(4) },
        extrema: Extrema {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        },
        histogram: Histogram { mantissa_bits: BITS, buckets: counts.into_iter().collect() },
    }
}

fn uniforms(count: usize) -> Vec<f64> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn close(found: f64, expected: f64, relative: f64, what: &str) {
    assert!((found - expected).abs() <= relative * expected.abs() + 1e-300, "{what}: {found}, expected {expected}");
}

/// Everything against the sorted values themselves.
fn check(values: &[f64]) {
    let output = distribution(&of(values));
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let error = number(&output, "quantile_relative_error");
    assert_eq!(error, 2f64.powi(-11));
    for (name, p) in
        [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.5", 0.995), ("p99.9", 0.999)]
    {
        // Exact in integers: ceil(p n) with p in thousandths.
        let rank = (n * (p * 1000.0f64).round() as usize).div_ceil(1000);
        close(number(&output, name), sorted[rank - 1], error, name);
    }
    for (name, part) in [("tvar95", 50), ("tvar99", 10)] {
        let tail = (n * part).div_ceil(1000);
        let mean = sorted[n - tail..].iter().sum::<f64>() / tail as f64;
        let scale = sorted[n - tail..].iter().map(|x| x.abs()).sum::<f64>() / tail as f64;
        assert!((number(&output, name) - mean).abs() <= error * scale + 1e-300, "{name}");
    }
    let zeros = values.iter().filter(|x| **x == 0.0).count();
    assert_eq!(number(&output, "share_zero"), zeros as f64 / n as f64);
    for point in output["exceedance"].as_array().unwrap() {
        let above = sorted.iter().filter(|x| **x > number(point, "loss")).count();
        let at_edge = sorted.iter().filter(|x| **x == number(point, "loss")).count();
        let found = (number(point, "probability") * n as f64).round() as usize;
        // A value on the edge itself belongs to the next bucket where it is positive.
        assert!((above..=above + at_edge).contains(&found), "{point}: {above}");
    }
    let plot = &output["histogram"];
    let edges: Vec<f64> = plot["edges"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
    let counts: Vec<u64> = plot["counts"].as_array().unwrap().iter().map(|e| e.as_u64().unwrap()).collect();
    assert_eq!(edges.len(), counts.len() + 1);
    assert!(counts.len() <= 41, "{} bins", counts.len());
    assert!(edges.is_sorted());
    assert_eq!(counts.iter().sum::<u64>(), n as u64, "every value is in one bin");
    assert!(edges[0] <= sorted[0] && *edges.last().unwrap() >= sorted[n - 1]);
}

#[test]
fn an_exponential_agrees_with_its_values_and_its_closed_form() {
    let values: Vec<f64> = uniforms(200_000).iter().map(|u| -(1.0 - u).ln()).collect();
    check(&values);
    let output = distribution(&of(&values));
    // Closed forms, within five standard errors of 200,000 draws.
    assert!((number(&output, "mean") - 1.0).abs() < 5.0 / 200_000f64.sqrt());
    assert!((number(&output, "variance") - 1.0).abs() < 5.0 * (8.0f64 / 200_000.0).sqrt());
    assert!((number(&output, "skewness") - 2.0).abs() < 0.15);
    assert!((number(&output, "kurtosis") - 9.0).abs() < 1.5);
    assert!((number(&output, "p95") - 20f64.ln()).abs() < 0.06);
    assert!((number(&output, "tvar95") - (20f64.ln() + 1.0)).abs() < 0.08);
    assert_eq!(output["histogram"]["scale"], "linear");
}

#[test]
fn losses_with_zeros_and_a_long_tail() {
    let values: Vec<f64> =
        uniforms(50_000).iter().map(|u| if *u < 0.3 { 0.0 } else { 100.0 / (1.0 - u * 0.99999).powi(2) }).collect();
    check(&values);
    let output = distribution(&of(&values));
    assert_eq!(output["histogram"]["scale"], "log");
    assert!(output["exceedance"].as_array().unwrap().len() >= 20);
    assert_eq!(output["min"], 0.0);
}

#[test]
fn known_small_numbers() {
    let output = distribution(&of(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(number(&output, "mean"), 2.5);
    // Unbiased: 5 / 3.
    close(number(&output, "variance"), 5.0 / 3.0, 1e-15, "variance");
    close(number(&output, "std_error"), (5.0f64 / 12.0).sqrt(), 1e-15, "std_error");
    assert_eq!(number(&output, "skewness"), 0.0);
    // n m4 / m2^2 = 4 * 10.25 / 25.
    close(number(&output, "kurtosis"), 1.64, 1e-15, "kurtosis");
    let ci: Vec<f64> = output["ci95"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    close(ci[0], 2.5 - 1.959_963_984_540_054 * (5.0f64 / 12.0).sqrt(), 1e-14, "low");
    close(ci[1], 2.5 + 1.959_963_984_540_054 * (5.0f64 / 12.0).sqrt(), 1e-14, "high");
    assert_eq!(number(&output, "p99.9"), 4.0, "clamped to the maximum");
    assert_eq!(number(&output, "tvar99"), 4.0);
}

#[test]
fn what_one_value_does_not_define_is_null() {
    let output = distribution(&of(&[7.0]));
    for name in ["variance", "std_dev", "std_error", "ci95", "skewness", "kurtosis"] {
        assert_eq!(output[name], Value::Null, "{name}");
    }
    assert_eq!((number(&output, "p50"), number(&output, "tvar99")), (7.0, 7.0));
    let zeros = distribution(&of(&[0.0, 0.0, 0.0]));
    assert_eq!((number(&zeros, "p99"), number(&zeros, "share_zero"), number(&zeros, "variance")), (0.0, 1.0, 0.0));
    let large = distribution(&of(&[f64::MAX, -f64::MAX]));
    assert_eq!(large["max"].as_f64(), Some(f64::MAX));
}

proptest! {
    #[test]
    fn any_values_agree_with_their_order(
        values in prop::collection::vec(prop_oneof![Just(0.0), -1e6f64..1e6, 0.0f64..1.0, 1e-300f64..1e-290], 2..400)
    ) {
        check(&values);
    }
}
