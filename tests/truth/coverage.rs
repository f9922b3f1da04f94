//! Intervals after an early end: a job that looks often and ends when its interval is narrow must still hold the truth
//! as often as it says.
//!
//! The truth is the closed form of the mean. The real kernel runs in the sandbox, and the rule is looked at by
//! `lifecycle::replay::run`, as in any pool.

use std::collections::BTreeMap;

use forge_lifecycle::converge::{Convergence, Reason};
use forge_lifecycle::replay;
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use serde_json::json;

use crate::dist;
use crate::model::{Insurance, Severity};

const KERNEL: &str = "mc@1";
const SEEDS: u32 = 400;

/// A rare event alone: one year in 10,000 has a loss, so that 16 units hold about a hundred, their number and size
/// vary from seed to seed, and with them the unit at which the job ends.
fn rare() -> Insurance {
    let cat = Severity { mu: 8.0, sigma: 0.6, cap: 1e18 };
    Insurance { claim_freq: 0.0, claim: cat, cat_prob: 1e-4, cat, aggregate_limit: 1e18 }
}

fn run(model: &Insurance, half_width: f64, confidence: f64, seed: u32) -> Convergence {
    let args = json!({
        "iterations": 20_000_000,
        "claim_freq": model.claim_freq,
        "cat_prob": model.cat_prob,
        "cat_mu": model.cat.mu,
        "cat_sig": model.cat.sigma,
        "policy_limit": model.cat.cap,
        "aggregate_limit": model.aggregate_limit,
        "stop": { "half_width": half_width, "confidence": confidence },
    });
    let contract = dist::contract(KERNEL, "insurance.v1", &args, &format!("COVERAGE-{seed}"));
    let plan = dist::planned(&contract, &dist::kernel(KERNEL));
    let kernel = dist::compiled(KERNEL, Backend::CraneliftSpeed);
    let replayed = replay::run(&plan, dist::job(), |task, _| {
        local::run_shard(&kernel, task, &Inputs::none(), |_| ()).outcome.completed()
    });
    replayed.unwrap().convergence.unwrap()
}

/// How each seed ended, all cores at work.
fn all(model: &Insurance, half_width: f64, confidence: f64) -> Vec<Convergence> {
    let workers = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let share = |worker: u32| -> Vec<Convergence> {
        (worker..SEEDS).step_by(workers as usize).map(|seed| run(model, half_width, confidence, seed)).collect()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|worker| scope.spawn(move || share(worker))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn an_interval_of_95_percent_holds_the_truth_in_93_to_97_of_100() {
    let model = rare();
    let truth = model.cumulants()[0];
    let ends = all(&model, 0.15, 0.95);
    let (mut inside, mut errors, mut units) = (0u32, 0.0, BTreeMap::new());
    for end in &ends {
        assert_eq!(end.reason, Reason::HalfWidth, "{end:?}");
        let half_width = end.measured.half_width.unwrap();
        let error = end.measured.mean - truth;
        inside += u32::from(error.abs() <= half_width);
        errors += error / (half_width / 1.959_963_984_540_054_2);
        *units.entry(end.stopped_at.unit).or_insert(0u32) += 1;
    }
    let share = f64::from(inside) / f64::from(SEEDS);
    let bias = errors / f64::from(SEEDS);
    println!("{inside} of {SEEDS} hold the truth; ends by units {units:?}; mean error {bias:.3} standard errors");
    assert!(units.len() >= 3, "{units:?}: all ends alike, so looking often was not tested");
    assert!((0.93..=0.97).contains(&share), "{inside} of {SEEDS}");
    // A narrow interval, as a share of the mean, is likelier where the mean came out high: a little bias is the price.
    assert!(bias.abs() < 0.3, "{bias} standard errors");
}
