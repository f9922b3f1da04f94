//! From a contract to the answer in this process: plan, tasks, sandboxed shards, the fold, the reduction.

use forge_contract::fragment::tree::Fold;
use forge_contract::fragment::{Distribution, Fragment, Part};
use forge_contract::report::Outcome;
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::plan::Plan;
use forge_lifecycle::reduce;
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use serde_json::{Value, json};

use crate::dist;
use crate::model::Insurance;

const KERNEL: &str = "mc@1";

/// What a contract gave.
pub struct Run {
    /// The folded part itself.
    pub loss: Distribution,
    /// `hub.output`, as the client gets it.
    pub output: Value,
}

fn plan(model: &Insurance, iterations: u64, seed: &str) -> Plan {
    let args = json!({
        "iterations": iterations,
        "claim_freq": model.claim_freq,
        "claim_severity_mu": model.claim.mu,
        "claim_severity_sig": model.claim.sigma,
        "cat_prob": model.cat_prob,
        "cat_mu": model.cat.mu,
        "cat_sig": model.cat.sigma,
        "policy_limit": model.claim.cap,
        "aggregate_limit": model.aggregate_limit,
    });
    dist::planned(&dist::contract(KERNEL, "insurance.v1", &args, seed), &dist::kernel(KERNEL))
}

/// Runs the whole contract.
pub fn run(model: &Insurance, iterations: u64, seed: &str) -> Run {
    let plan = plan(model, iterations, seed);
    let kernel = dist::compiled(KERNEL, Backend::CraneliftSpeed);
    let mut fold = Fold::new(plan.stages[0].units);
    for task in dist::tasks(&plan, 0) {
        let result = local::run_shard(&kernel, &task, &Inputs::none(), |_| ());
        let Outcome::Completed(completed) = result.outcome else { panic!("{:?}", result.outcome) };
        fold.insert(task.first_unit, task.unit_count, Fragment::decode(&completed.fragment).unwrap()).unwrap();
    }
    let fragment = fold.finish().unwrap();
    fragment.check(&plan.stages[0].parts, iterations).unwrap();
    let stage = StageFragment { stage: "simulate".into(), bytes: fragment.encode(), digest: fragment.digest() };
    Run { output: reduce::output(&plan, &[stage]).unwrap(), loss: loss(fragment) }
}

/// Runs every unit for itself.
pub fn units(model: &Insurance, iterations: u64, seed: &str) -> Vec<Distribution> {
    let plan = plan(model, iterations, seed);
    let kernel = dist::compiled(KERNEL, Backend::CraneliftSpeed);
    let unit = |unit| local::run_unit(&kernel, &dist::task_of(&plan, 0, unit), unit, &Inputs::none()).unwrap();
    (0..plan.stages[0].units).map(|index| loss(unit(index).fragment)).collect()
}

fn loss(fragment: Fragment) -> Distribution {
    match fragment.parts.into_iter().find(|named| named.name == "loss").map(|named| named.part) {
        Some(Part::Distribution(loss)) => loss,
        other => panic!("no distribution of the loss: {other:?}"),
    }
}
