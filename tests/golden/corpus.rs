//! Known answers of the committed kernels: how single units end, equal under every backend and on every processor.
//!
//! `FORGEPOOL_RECORD_GOLDEN=1 cargo test --workspace --test golden` writes what is found into the files, and the
//! goldens that `cargo xtask kernels` puts into the manifests into `workloads/*/goldens.json`. A change of a recorded
//! number means that results changed: once released, it needs a new kernel version or a new engine profile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{Golden, GoldenInput};
use forge_contract::{Digest, FailureCode};
use forge_sandbox::engine::Backend;
use forge_sandbox::local;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dist;

const MANIFEST_GOLDENS: usize = 3;

/// One known answer: run this unit with these, find this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What makes it worth keeping.
    pub why: String,
    pub profile: String,
    pub stage: String,
    pub args: Value,
    pub seed: String,
    pub unit: u64,
    /// What the unit reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<GoldenInput>,
    /// Limits, where they are not those of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<UnitLimits>,
    /// Digest of the unit's fragment, and the fuel burned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// The code of its failure, where it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureCode>,
}

/// How a unit ends.
pub type Answer = Result<(Digest, u64), FailureCode>;

impl Entry {
    /// The recorded answer; `None` before the first recording.
    #[must_use]
    pub fn recorded(&self) -> Option<Answer> {
        match (self.digest, self.fuel, self.failure) {
            (Some(digest), Some(fuel), None) => Some(Ok((digest, fuel))),
            (None, None, Some(code)) => Some(Err(code)),
            _ => None,
        }
    }

    /// As a manifest carries it.
    #[must_use]
    pub fn golden(&self, digest: Digest, fuel: u64) -> Golden {
        let Self { stage, args, seed, unit, inputs, .. } = self.clone();
        Golden { stage, args, seed, unit, inputs, digest, fuel }
    }

    fn record(&mut self, answer: Answer) {
        self.digest = answer.ok().map(|(digest, _)| digest);
        self.fuel = answer.ok().map(|(_, fuel)| fuel);
        self.failure = answer.err();
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

pub fn entries(label: &str) -> Vec<Entry> {
    let text = std::fs::read_to_string(path(&format!("{label}.json"))).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{label}.json: {e}"))
}

/// How an entry's unit ends under a backend.
pub fn answer(label: &str, entry: &Entry, backend: Backend) -> Answer {
    let envelope = dist::contract(label, &entry.profile, &entry.args, &entry.seed);
    let plan = dist::planned(&envelope, &dist::kernel(label));
    let stage = plan.stages.iter().position(|s| s.name == entry.stage).unwrap();
    let mut task = dist::task_of(&plan, u32::try_from(stage).unwrap(), entry.unit);
    task.limits = entry.limits.unwrap_or(task.limits);
    let inputs = dist::give(&mut task, entry.golden(Digest::of(b""), 0).reads());
    let run = local::run_unit(&dist::compiled(label, backend), &task, entry.unit, &inputs);
    let run = run.map_err(|failure| {
        assert_eq!(failure.unit, Some(entry.unit), "{label}, {}: {failure:?}", entry.why);
        failure.code
    })?;
    assert_eq!(Digest::of(&run.bytes), run.fragment.digest());
    assert_eq!(run.log, "", "{label}, {}: a kernel of ours prints nothing", entry.why);
    Ok((run.fragment.digest(), run.fuel))
}

/// The known answers that a kernel carries in its own manifest: the first few of the corpus.
fn write_manifest_goldens(label: &str, entries: &[Entry]) {
    let mut goldens: BTreeMap<String, Vec<Golden>> = BTreeMap::new();
    let whole = entries.iter().filter(|entry| entry.limits.is_none());
    for (entry, answer) in whole.filter_map(|e| Some((e, e.recorded()?))).take(MANIFEST_GOLDENS) {
        if let Ok((digest, fuel)) = answer {
            goldens.entry(entry.profile.clone()).or_default().push(entry.golden(digest, fuel));
        }
    }
    let name = label.split('@').next().unwrap();
    write(&format!("../../workloads/{name}/goldens.json"), &goldens);
}

/// Records a kernel's answers, as the backend that agents use gives them.
pub fn record(label: &str) {
    let mut held = entries(label);
    for entry in &mut held {
        entry.record(answer(label, entry, Backend::CraneliftSpeed));
    }
    write(&format!("{label}.json"), &held);
    write_manifest_goldens(label, &held);
}

/// What of a kernel's recorded answers a backend does not give.
pub fn differences(label: &str, backend: Backend) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries(label) {
        let answer = answer(label, &entry, backend);
        if entry.recorded() != Some(answer) {
            let (why, recorded) = (&entry.why, entry.recorded());
            found.push(format!("{label}, {backend:?}, {why}: recorded {recorded:?}, found {answer:?}"));
        }
    }
    found
}
