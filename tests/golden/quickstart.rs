//! The product's quickstart contract, `examples/quickstart.json`, whole: every unit's digest and fuel, and the digest
//! of the folded result.

use forge_contract::Digest;
use forge_contract::envelope::Envelope;
use forge_contract::fragment::Fragment;
use forge_contract::fragment::tree::Fold;
use forge_contract::report::{Outcome, UnitRecord};
use forge_contract::task::Task;
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::plan::Plan;
use forge_lifecycle::reduce;
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{corpus, dist};

const FILE: &str = "quickstart.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Digest of the folded fragment.
    digest: Digest,
    /// Digest of the whole result, as the answer has it.
    result_digest: Digest,
    /// `hub.output`, but for the points of its curves.
    output: Value,
    units: Vec<UnitRecord>,
}

fn known() -> Known {
    serde_json::from_str(&std::fs::read_to_string(corpus::path(FILE)).unwrap()).unwrap()
}

/// The contract as a client sends it.
fn contract() -> Value {
    serde_json::from_str(&std::fs::read_to_string(dist::repository().join("examples/quickstart.json")).unwrap())
        .unwrap()
}

/// The plan, with as many shards as asked for.
fn plan(contract: &Value, shards: u32) -> Plan {
    let mut contract = contract.clone();
    contract["policy"]["shards"] = shards.into();
    let envelope = Envelope::parse(contract.to_string().as_bytes()).unwrap();
    dist::planned(&envelope, &dist::kernel("mc@1"))
}

/// The result's digest and output, as the hub makes them of a folded fragment.
fn reduced(plan: &Plan, fragment: &Fragment) -> (Digest, Value) {
    let stage = StageFragment { stage: "simulate".into(), bytes: fragment.encode(), digest: fragment.digest() };
    let mut output = reduce::output(plan, std::slice::from_ref(&stage)).unwrap();
    for curve in ["exceedance", "histogram"] {
        output["loss"].as_object_mut().unwrap().remove(curve).unwrap();
    }
    (reduce::result_digest(&[stage]), output)
}

/// Folded fragment and unit records of a plan, its tasks run in the order given.
fn run(plan: &Plan, tasks: impl Iterator<Item = Task>, backend: Backend) -> (Fragment, Vec<UnitRecord>) {
    let kernel = dist::compiled("mc@1", backend);
    let mut fold = Fold::new(plan.stages[0].units);
    let mut records = vec![None; usize::try_from(plan.stages[0].units).unwrap()];
    for task in tasks {
        let result = local::run_shard(&kernel, &task, &Inputs::none(), |_| ());
        let Outcome::Completed(completed) = result.outcome else { panic!("{:?}", result.outcome) };
        let fragment = Fragment::decode(&completed.fragment).unwrap();
        fold.insert(task.first_unit, task.unit_count, fragment).unwrap();
        for (at, record) in completed.units.into_iter().enumerate() {
            records[usize::try_from(task.first_unit).unwrap() + at] = Some(record);
        }
    }
    (fold.finish().unwrap(), records.into_iter().map(Option::unwrap).collect())
}

#[test]
fn the_quickstart_gives_the_recorded_digest_under_both_compilers() {
    let mut known = known();
    let plan = plan(&contract(), 4);
    assert_eq!(plan.stages[0].units, 16);
    if corpus::recording() {
        let (fragment, units) = run(&plan, dist::tasks(&plan, 0).into_iter(), Backend::CraneliftSpeed);
        (known.digest, known.units) = (fragment.digest(), units);
        (known.result_digest, known.output) = reduced(&plan, &fragment);
        corpus::write(FILE, &known);
        return;
    }
    for backend in [Backend::CraneliftSpeed, Backend::CraneliftNone] {
        let (fragment, units) = run(&plan, dist::tasks(&plan, 0).into_iter(), backend);
        assert_eq!(units, known.units, "{backend:?}");
        assert_eq!(fragment.digest(), known.digest, "{backend:?}");
        assert_eq!(reduced(&plan, &fragment), (known.result_digest, known.output.clone()), "{backend:?}");
    }
}

#[test]
fn any_number_of_shards_in_any_order_gives_the_recorded_digest() {
    let known = known();
    if corpus::recording() {
        return;
    }
    for shards in [1, 2, 3, 7, 16] {
        let plan = plan(&contract(), shards);
        let tasks = dist::tasks(&plan, 0);
        let turned = tasks.iter().rev().cycle().skip(tasks.len() / 2).take(tasks.len()).cloned();
        let (fragment, units) = run(&plan, turned, Backend::CraneliftSpeed);
        assert_eq!((fragment.digest(), units), (known.digest, known.units.clone()), "{shards} shards");
    }
}

#[test]
fn another_seed_or_argument_gives_another_result() {
    let known = known();
    for (pointer, value) in [("/seed/value", Value::from("ROOT_SEED_QUICKSTARt")), ("/args/claim_freq", 2.01.into())] {
        let mut contract = contract();
        *contract.pointer_mut(pointer).unwrap() = value;
        let plan = plan(&contract, 16);
        let task = dist::task_of(&plan, 0, 3);
        let unit =
            local::run_unit(&dist::compiled("mc@1", Backend::CraneliftSpeed), &task, 3, &Inputs::none()).unwrap();
        assert_ne!(unit.fragment.digest(), known.units[3].digest, "{pointer}");
    }
}

#[test]
fn policy_and_context_do_not_reach_the_task() {
    let mut other = contract();
    other["ctx"]["job_id"] = "another".into();
    other["policy"]["verify"] = "quorum".into();
    other["policy"]["min_agents"] = 2.into();
    let keys = |contract: &Value| dist::tasks(&plan(contract, 4), 0).iter().map(Task::key_digest).collect::<Vec<_>>();
    assert_eq!(keys(&contract()), keys(&other));
    assert_eq!(plan(&contract(), 4).replay_key, plan(&other, 2).replay_key);
}
