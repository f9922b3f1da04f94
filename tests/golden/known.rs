//! The corpus under every backend.

use forge_contract::FailureCode;
use forge_golden::corpus::Entry;
use forge_sandbox::engine::Backend;
use forge_sandbox::local;

use crate::products::{Question, questions};
use crate::{corpus, dist};

fn check(label: &str, backend: Backend) {
    assert!(!corpus::entries(label).is_empty());
    if corpus::recording() {
        // One backend records, the others must then agree with it.
        if backend == Backend::CraneliftSpeed {
            corpus::record(label);
        }
        return;
    }
    let differences = corpus::differences(label, backend);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn mc_under_the_optimising_compiler() {
    check("mc@1", Backend::CraneliftSpeed);
}

#[test]
fn mc_under_the_plain_compiler() {
    check("mc@1", Backend::CraneliftNone);
}

#[test]
fn mc_under_the_interpreter() {
    check("mc@1", Backend::Pulley);
}

#[test]
fn gemm_under_every_backend() {
    if corpus::recording() {
        return; // `gemm_is_asked_what_products_says` records.
    }
    for backend in Backend::ALL {
        check("gemm@1", backend);
    }
}

/// The recorded inputs are those that `products` makes; recording asks its questions anew.
#[test]
fn gemm_is_asked_what_products_says() {
    let asked = |question: Question| Entry {
        why: question.why.into(),
        profile: question.profile.into(),
        stage: "multiply".into(),
        args: question.args,
        seed: "unused".into(),
        unit: question.unit,
        inputs: question.inputs,
        limits: None,
        digest: None,
        fuel: None,
        failure: None,
    };
    let asked: Vec<Entry> = questions().into_iter().map(asked).collect();
    if corpus::recording() {
        corpus::write("gemm@1.json", &asked);
        return check("gemm@1", Backend::CraneliftSpeed);
    }
    let blank = |entry: Entry| Entry { digest: None, fuel: None, failure: None, ..entry };
    assert_eq!(corpus::entries("gemm@1").into_iter().map(blank).collect::<Vec<_>>(), asked);
}

#[test]
fn noop_under_every_backend() {
    for backend in Backend::ALL {
        check("noop@1", backend);
    }
}

/// Fuel is checked at loops and calls, so a unit may pass its limit by a little; where it stops must be the same.
#[test]
fn fuel_runs_out_at_the_same_place_under_every_backend() {
    for label in dist::KERNELS {
        let completed = corpus::entries(label).into_iter().filter_map(|entry| Some((entry.recorded()?.ok()?, entry)));
        // The limit bounds instantiating too (about 38,000 fuel for gemm@1), so the smallest entry that burns more than
        // that; noop@1 never does, and costs next to nothing to instantiate.
        let size = |fuel: u64| if fuel >= 100_000 { (0, fuel) } else { (1, u64::MAX - fuel) };
        let Some(((digest, fuel), entry)) = completed.min_by_key(|((_, fuel), _)| size(*fuel)) else { continue };
        let envelope = dist::contract(label, &entry.profile, &entry.args, &entry.seed);
        let mut task = dist::task_of(&dist::planned(&envelope, &dist::kernel(label)), 0, entry.unit);
        let inputs = dist::give(&mut task, entry.golden(digest, fuel).reads());
        for limit in [1, fuel / 2, fuel - 1, fuel, fuel + 1] {
            task.limits.fuel = limit;
            let ends = Backend::ALL.map(|backend| {
                let found = local::run_unit(&dist::compiled(label, backend), &task, entry.unit, &inputs);
                found.map(|run| (run.fragment.digest(), run.fuel)).map_err(|failure| (failure.code, failure.unit))
            });
            assert!(ends.iter().all(|end| *end == ends[0]), "{label}, limit {limit}: {ends:?}");
            if limit <= fuel / 2 {
                assert_eq!(ends[0], Err((FailureCode::AgentFuelExhausted, Some(entry.unit))));
            }
            if limit > fuel {
                assert_eq!(ends[0], Ok((digest, fuel)));
            }
        }
    }
}
