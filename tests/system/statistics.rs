//! A million iterations against the independent truth of insurance.v1, within five standard errors.

use forge_tests::contract::quickstart_text;
use forge_tests::pool::Pool;
use serde_json::Value;

use crate::answers::number;

/// Statistic, truth, standard error at 1e6 iterations, width of a histogram bucket there (2^-10 of the value).
///
/// Source: closed form for mean and variance; FFT convolution (step 0.25) for the rest; the quickstart's arguments.
/// The errors of the tail means are five times the spread of the quantile next to them, which bounds them.
const TRUTH: &[(&str, f64, f64)] = &[
    ("mean", 1_853.533_318_027_9, 4.788),
    ("variance", 22_925_870.194_72, 205_364.0),
    ("p50", 907.34, 1.46),
    ("p90", 3_423.5, 5.5),
    ("p95", 4_889.2, 11.0),
    ("p99", 23_679.0, 396.0),
    ("p99.5", 50_117.6, 26.0),
    ("p99.9", 52_407.0, 45.0),
];
/// P(loss = 0) and its standard error at 1e6.
const SHARE_ZERO: (f64, f64) = (0.132_628_578, 3.4e-4);
/// Relative width of a bucket.
const BUCKET: f64 = 1.0 / 1024.0;

#[tokio::test]
async fn a_million_years_agree_with_the_truth() {
    let pool = Pool::start(2).await;
    let answer = pool.api.execute_text(quickstart_text()).await;
    let loss = &answer.body["hub"]["output"]["loss"];
    for (name, truth, error) in TRUTH {
        let found = number(loss, &format!("/{name}"));
        let allowed = 5.0 * error + truth * BUCKET * f64::from(u8::from(name.starts_with('p')));
        assert!((found - truth).abs() <= allowed, "{name}: {found}, truth {truth} +- {allowed}");
    }
    let zero = number(loss, "/share_zero");
    assert!((zero - SHARE_ZERO.0).abs() <= 5.0 * SHARE_ZERO.1, "share of zero: {zero}");
    check_consistency(loss);
    pool.stop().await;
}

/// What must hold between the numbers whatever the sample.
fn check_consistency(loss: &Value) {
    let at = |name: &str| number(loss, &format!("/{name}"));
    assert!((at("std_dev").powi(2) / at("variance") - 1.0).abs() < 1e-12);
    assert!((at("std_error") * 1000.0 / at("std_dev") - 1.0).abs() < 1e-6, "1e6 observations");
    let rising = ["min", "p50", "p75", "p90", "p95", "p99", "p99.5", "p99.9", "max"].map(at);
    assert!(rising.windows(2).all(|pair| pair[0] <= pair[1]), "{rising:?}");
    assert!(at("tvar95") >= at("p95") && at("tvar99") >= at("p99") && at("tvar99") >= at("tvar95"));
    assert!(at("max") <= 250_000.0, "the aggregate limit holds");
}
