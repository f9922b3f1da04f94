//! The kernel's own source, compiled natively: what the sandboxed kernel is compared with.
//!
//! `mc-native [--units N] [--json]` runs that many units of 65,536 policy years and prints nanoseconds per iteration.
#![expect(clippy::print_stdout, reason = "a command that prints its measurement")]

use std::time::Instant;

use forge_sdk_guest::rng::Generator;
use kernel_mc::{Arguments, simulate};

const UNIT: u64 = 65_536;

fn main() {
    let mut units = 200;
    let mut json = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--units" => units = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(units),
            other => units = other.parse().unwrap_or(units),
        }
    }
    let policy = Arguments {
        iterations: units * UNIT,
        claim_freq: 2.0,
        claim_severity_mu: 6.0,
        claim_severity_sig: 1.0,
        cat_prob: 0.02,
        cat_mu: 10.0,
        cat_sig: 1.5,
        policy_limit: 50_000.0,
        aggregate_limit: 250_000.0,
    };
    let start = Instant::now();
    let mut mean = 0.0;
    let mut fastest = f64::INFINITY;
    for unit in 0..units {
        let begun = Instant::now();
        match simulate(&policy, &mut Generator::new(&[7; 32], unit), UNIT) {
            Ok(found) => mean += (found.moments.mean - mean) / (unit + 1) as f64,
            Err(failure) => {
                println!("{failure:?}");
                std::process::exit(1);
            }
        }
        fastest = fastest.min(begun.elapsed().as_secs_f64() * 1e9 / UNIT as f64);
    }
    let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / (units * UNIT) as f64;
    if json {
        println!(
            "{{\"units\":{units},\"iterations\":{},\"ns_per_iteration\":{nanoseconds},\"ns_per_iteration_fastest\":{fastest},\"mean\":{mean}}}",
            units * UNIT
        );
    } else {
        println!("{units} units, {nanoseconds:.2} ns per iteration ({fastest:.2} in the fastest unit), mean {mean:.3}");
    }
}
