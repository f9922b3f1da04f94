//! The example kernels against what is known without them: Black-Scholes, the prime-counting function, small grids.

use std::f64::consts::PI;

use forge_tests::examples::output;
use serde_json::{Value, json};

use crate::normal;

/// Standard errors that an estimate may lie from the truth.
const ERRORS_MAX: f64 = 4.5;

struct Greeks {
    price: f64,
    delta: f64,
    gamma: f64,
    vega: f64,
}

/// Source: F. Black, M. Scholes, 1973; with a yield: R. C. Merton, 1973.
fn black_scholes(call: bool, spot: f64, strike: f64, rate: f64, dividend: f64, volatility: f64, expiry: f64) -> Greeks {
    let spread = volatility * expiry.sqrt();
    let d1 = ((spot / strike).ln() + (rate - dividend + 0.5 * volatility * volatility) * expiry) / spread;
    let d2 = d1 - spread;
    let density = (-0.5 * d1 * d1).exp() / (2.0 * PI).sqrt();
    let (asset, cash) = (spot * (-dividend * expiry).exp(), strike * (-rate * expiry).exp());
    let sign = if call { 1.0 } else { -1.0 };
    Greeks {
        price: sign * (asset * normal::below(sign * d1) - cash * normal::below(sign * d2)),
        delta: sign * (-dividend * expiry).exp() * normal::below(sign * d1),
        gamma: (-dividend * expiry).exp() * density / (spot * spread),
        vega: asset * density * expiry.sqrt(),
    }
}

#[track_caller]
fn near(output: &Value, part: &str, truth: f64) {
    let found = |name: &str| output[part][name].as_f64().unwrap_or_else(|| panic!("{part}.{name} in {output}"));
    let (mean, error) = (found("mean"), found("std_error"));
    assert!(error > 0.0 && (mean - truth).abs() <= ERRORS_MAX * error, "{part}: {mean} +- {error}, not {truth}");
}

#[test]
fn the_truth_is_the_published_one() {
    let truth = black_scholes(true, 100.0, 100.0, 0.05, 0.02, 0.25, 1.0);
    for (found, published, digits) in [
        (truth.price, 11.123_762, 5e-7),
        (truth.delta, 0.584_955, 5e-7),
        (truth.gamma, 0.015_179_2, 5e-8),
        (truth.vega, 37.948_09, 5e-6),
    ] {
        assert!((found - published).abs() <= digits, "{found}, not {published}");
    }
}

#[test]
fn the_pricer_meets_black_scholes() {
    for (args, call, strike, volatility, expiry) in [
        (json!({}), true, 100.0, 0.25, 1.0),
        (json!({"antithetic": false}), true, 100.0, 0.25, 1.0),
        (json!({"option": "put", "strike": 110.0, "expiry": 0.5}), false, 110.0, 0.25, 0.5),
        (json!({"option": "put", "antithetic": false, "volatility": 0.6}), false, 100.0, 0.6, 1.0),
        (json!({"strike": 140.0, "volatility": 0.4, "expiry": 3.0}), true, 140.0, 0.4, 3.0),
    ] {
        let mut args = args;
        args["samples"] = 400_000.into();
        let found = output("pricer", "european.v1", &args, "truth");
        let truth = black_scholes(call, 100.0, strike, 0.05, 0.02, volatility, expiry);
        near(&found, "price", truth.price);
        near(&found, "delta", truth.delta);
        near(&found, "gamma", truth.gamma);
        near(&found, "vega", truth.vega);
        for part in ["price", "delta", "gamma", "vega"] {
            assert_eq!(found[part]["n"], 400_000, "{part}");
        }
    }
}

#[test]
fn antithetic_samples_narrow_the_interval() {
    let error = |antithetic: bool, samples: u64| {
        let found = output("pricer", "european.v1", &json!({"samples": samples, "antithetic": antithetic}), "width");
        found["price"]["std_error"].as_f64().unwrap()
    };
    // The same number of normals' values: half the samples, two values each.
    assert!(error(true, 100_000) < 0.95 * error(false, 200_000));
}

#[test]
fn primes_are_counted() {
    // The prime-counting function: OEIS A006880, and small values by hand.
    for (limit, primes) in
        [(1_u64, 0_u64), (2, 1), (10, 4), (65_536, 6_542), (65_537, 6_543), (100_000, 9_592), (1_000_000, 78_498)]
    {
        let found = output("primes", "count.v1", &json!({"limit": limit}), "any");
        assert_eq!((found["tested"].as_u64(), found["primes"].as_u64()), (Some(limit), Some(primes)), "{limit}");
    }
}

#[test]
fn small_grids_percolate_as_counted_by_hand() {
    let run = |size: u64, open: f64, grids: u64| {
        output("percolation", "square.v1", &json!({"grids": grids, "size": size, "open": open}), "grids")
    };
    for open in [0.3, 0.592_746, 0.8] {
        // One site.
        near(&run(1, open, 40_000), "spans", open);
        near(&run(1, open, 40_000), "largest", open);
        // Two columns of two, either of which is enough.
        near(&run(2, open, 40_000), "spans", 1.0 - (1.0 - open * open) * (1.0 - open * open));
    }
    for (open, spans) in [(0.0, 0.0), (1.0, 1.0)] {
        let found = run(16, open, 100);
        assert_eq!((found["spans"]["mean"].as_f64(), found["largest"]["mean"].as_f64()), (Some(spans), Some(spans)));
    }
}

/// Three sites of three: the probability by going through all 512 grids.
#[test]
fn grids_of_three_percolate_as_enumerated() {
    let crossed = |grid: u32| {
        let open = |row: i32, column: i32| {
            (0..3).contains(&row) && (0..3).contains(&column) && grid >> (3 * row + column) & 1 == 1
        };
        let mut reached: Vec<(i32, i32)> = (0..3).filter(|column| open(0, *column)).map(|column| (0, column)).collect();
        let mut at = 0;
        while at < reached.len() {
            let (row, column) = reached[at];
            for next in [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)] {
                if open(next.0, next.1) && !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        reached.iter().any(|(row, _)| *row == 2)
    };
    let p = 0.6_f64;
    let weight = |grid: u32| p.powi(grid.count_ones() as i32) * (1.0 - p).powi(9 - grid.count_ones() as i32);
    let truth: f64 = (0..512).filter(|grid| crossed(*grid)).map(weight).sum();
    near(
        &output("percolation", "square.v1", &json!({"grids": 100_000, "size": 3, "open": p}), "three"),
        "spans",
        truth,
    );
}
