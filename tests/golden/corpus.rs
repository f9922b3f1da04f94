//! Known answers of the committed kernels: digest and fuel of single units, equal under every backend.
//!
//! `FORGEPOOL_RECORD_GOLDEN=1 cargo test -p forge-tests --test golden` writes what is found into the files, and the
//! goldens that `cargo xtask kernels` puts into the manifests into `workloads/*/goldens.json`. A change of a recorded
//! number means that results changed: once released, it needs a new kernel version or a new engine profile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forge_contract::manifest::{Golden, GoldenInput};
use forge_contract::{Digest, FailureCode};
use forge_sandbox::engine::Backend;
use forge_sandbox::local;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dist;
use crate::products::{Question, questions};

const MANIFEST_GOLDENS: usize = 3;

/// One known answer: run this unit with these, find this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What makes it worth keeping.
    why: String,
    profile: String,
    stage: String,
    args: Value,
    seed: String,
    unit: u64,
    /// What the unit reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<GoldenInput>,
    /// Digest of the unit's fragment, and the fuel burned.
    digest: Digest,
    fuel: u64,
}

impl Entry {
    /// As a manifest carries it.
    fn golden(&self) -> Golden {
        let Self { stage, args, seed, unit, inputs, digest, fuel, .. } = self.clone();
        Golden { stage, args, seed, unit, inputs, digest, fuel }
    }
}

pub fn recording() -> bool {
    std::env::var_os("FORGEPOOL_RECORD_GOLDEN").is_some()
}

pub fn path(name: &str) -> PathBuf {
    dist::repository().join("tests/golden").join(name)
}

pub fn write(name: &str, value: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(value).unwrap();
    text.push('\n');
    std::fs::write(path(name), text).unwrap();
    println!("recorded {name}");
}

fn entries(label: &str) -> Vec<Entry> {
    let text = std::fs::read_to_string(path(&format!("{label}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Digest and fuel of an entry's unit under a backend.
fn answer(label: &str, entry: &Entry, backend: Backend) -> (Digest, u64) {
    let envelope = dist::contract(label, &entry.profile, &entry.args, &entry.seed);
    let plan = dist::planned(&envelope, &dist::kernel(label));
    let stage = plan.stages.iter().position(|s| s.name == entry.stage).unwrap();
    let mut task = dist::task_of(&plan, u32::try_from(stage).unwrap(), entry.unit);
    let inputs = dist::give(&mut task, entry.golden().reads());
    let kernel = dist::compiled(label, backend);
    let run = local::run_unit(&kernel, &task, entry.unit, &inputs);
    let run = run.unwrap_or_else(|e| panic!("{label}, {}: {e:?}", entry.why));
    assert_eq!(Digest::of(&run.bytes), run.fragment.digest());
    assert_eq!(run.log, "", "{label}, {}: a kernel of ours prints nothing", entry.why);
    (run.fragment.digest(), run.fuel)
}

/// The known answers that a kernel carries in its own manifest: the first few of the corpus.
fn write_manifest_goldens(label: &str, entries: &[Entry]) {
    let mut goldens: BTreeMap<String, Vec<Golden>> = BTreeMap::new();
    for entry in entries.iter().take(MANIFEST_GOLDENS) {
        goldens.entry(entry.profile.clone()).or_default().push(entry.golden());
    }
    let name = label.split('@').next().unwrap();
    write(&format!("../../workloads/{name}/goldens.json"), &goldens);
}

fn check(label: &str, backend: Backend) {
    let mut held = entries(label);
    assert!(!held.is_empty());
    if recording() {
        // One backend records, the others must then agree with it.
        if backend == Backend::CraneliftSpeed {
            for entry in &mut held {
                (entry.digest, entry.fuel) = answer(label, entry, backend);
            }
            write(&format!("{label}.json"), &held);
            write_manifest_goldens(label, &held);
        }
        return;
    }
    for entry in &held {
        let found = answer(label, entry, backend);
        assert_eq!(found, (entry.digest, entry.fuel), "{label}, {backend:?}: {}", entry.why);
    }
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
    if recording() {
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
        digest: Digest::of(b""),
        fuel: 0,
    };
    let asked: Vec<Entry> = questions().into_iter().map(asked).collect();
    if recording() {
        write("gemm@1.json", &asked);
        return check("gemm@1", Backend::CraneliftSpeed);
    }
    let blank = |entry: Entry| Entry { digest: Digest::of(b""), fuel: 0, ..entry };
    assert_eq!(entries("gemm@1").into_iter().map(blank).collect::<Vec<_>>(), asked);
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
        let entry = entries(label).into_iter().min_by_key(|entry| entry.fuel).unwrap();
        let envelope = dist::contract(label, &entry.profile, &entry.args, &entry.seed);
        let mut task = dist::task_of(&dist::planned(&envelope, &dist::kernel(label)), 0, entry.unit);
        let inputs = dist::give(&mut task, entry.golden().reads());
        for limit in [1, entry.fuel / 2, entry.fuel - 1, entry.fuel, entry.fuel + 1] {
            task.limits.fuel = limit;
            let ends = Backend::ALL.map(|backend| {
                let found = local::run_unit(&dist::compiled(label, backend), &task, entry.unit, &inputs);
                found.map(|run| (run.fragment.digest(), run.fuel)).map_err(|failure| (failure.code, failure.unit))
            });
            assert!(ends.iter().all(|end| *end == ends[0]), "{label}, limit {limit}: {ends:?}");
            if limit <= entry.fuel / 2 {
                assert_eq!(ends[0], Err((FailureCode::AgentFuelExhausted, Some(entry.unit))));
            }
            if limit > entry.fuel {
                assert_eq!(ends[0], Ok((entry.digest, entry.fuel)));
            }
        }
    }
}
