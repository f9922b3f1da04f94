//! The walls of the house: who may import whom, what no crate may contain, how large a file may grow.
//!
//! Crate rules come from `cargo metadata`, so a dependency that arrives through another one counts too; module rules
//! come from the source text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate of ours may import of ours (DESIGN, section 3). A crate that is not here fails the test.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("forge-contract", &[]),
    ("forge-lifecycle", &["forge-contract"]),
    ("forge-protocol", &["forge-contract"]),
    ("forge-sandbox", &["forge-contract"]),
    ("forge-telemetry", &["forge-contract"]),
    ("forge-build", &["forge-contract"]),
    ("forge-hub", &["forge-contract", "forge-lifecycle", "forge-protocol", "forge-telemetry"]),
    ("forge-agent", &["forge-contract", "forge-protocol", "forge-sandbox", "forge-telemetry"]),
    ("forgepool", &["forge-contract", "forge-lifecycle", "forge-sandbox", "forge-build", "forge-hub", "forge-agent"]),
    ("forge-xtask", &["forge-contract", "forge-build", "forge-sandbox", "forge-lifecycle"]),
    ("forge-fuzz", &["forge-contract", "forge-lifecycle", "forge-protocol"]),
    ("forge-golden", &["forge-contract", "forge-lifecycle", "forge-sandbox"]),
    ("forge-tests", &["forge-contract", "forge-lifecycle", "forge-protocol", "forge-sandbox", "forge-build"]),
];

/// A heavy dependency has one home: (crate, the crates of ours that may name it).
const HOMES: &[(&str, &[&str])] = &[
    ("wasmtime", &["forge-sandbox"]),
    ("wasmtime-wasi", &["forge-sandbox"]),
    // The tests speak bare QUIC too, to say what no agent would.
    ("quinn", &["forge-protocol", "forge-tests"]),
    ("bao-tree", &["forge-protocol"]),
    ("axum", &["forge-hub"]),
    ("opentelemetry", &["forge-telemetry"]),
    ("opentelemetry-otlp", &["forge-telemetry"]),
    ("opentelemetry_sdk", &["forge-telemetry"]),
    ("sqlx", &["forge-hub"]),
];

/// What must not be reachable at all: (from, crate name prefix, why).
const UNREACHABLE: &[(&str, &str, &str)] = &[
    ("forge-hub", "wasmtime", "the hub never executes compute"),
    ("forge-hub", "cranelift", "the hub never executes compute"),
    ("forge-hub", "pulley", "the hub never executes compute"),
    ("forge-hub", "forge-sandbox", "the hub never executes compute"),
    ("forge-agent", "forge-lifecycle", "an agent knows its task, not the job"),
    ("forge-lifecycle", "tokio", "the core is pure"),
    ("forge-contract", "tokio", "the core is pure"),
    ("forge-contract", "wasmparser", "nouns need no parser"),
];

/// Words that a pure crate's source must not contain outside its tests.
const IMPURE: &[&str] =
    &["std::time::Instant", "SystemTime", "tokio::", "std::fs", "std::net", "std::env", "getrandom", "thread_rng"];

const LICENSES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "MPL-2.0",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
    "Unlicense",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

struct Graph {
    names: BTreeMap<String, String>,
    normal: BTreeMap<String, Vec<String>>,
    packages: Vec<Value>,
    ours: BTreeSet<String>,
}

impl Graph {
    fn read() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap().clone();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let names = packages.iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let mut normal = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let deps = node["deps"].as_array().unwrap().iter();
            let kept = deps.filter(|d| d["dep_kinds"].as_array().unwrap().iter().any(|k| k["kind"].is_null()));
            normal.insert(text(&node["id"]), kept.map(|d| text(&d["pkg"])).collect());
        }
        let ours = metadata["workspace_members"].as_array().unwrap().iter().map(text).collect();
        Self { names, normal, packages, ours }
    }

    fn id_of(&self, name: &str) -> &str {
        self.ours.iter().find(|id| self.names[*id] == name).unwrap_or_else(|| panic!("no crate {name}"))
    }

    fn reachable(&self, from: &str) -> BTreeSet<String> {
        let (mut seen, mut queue) = (BTreeSet::new(), vec![self.id_of(from).to_owned()]);
        while let Some(id) = queue.pop() {
            for next in &self.normal[&id] {
                if seen.insert(next.clone()) {
                    queue.push(next.clone());
                }
            }
        }
        seen.iter().map(|id| self.names[id].clone()).collect()
    }
}

#[test]
fn crates_import_only_downward() {
    let graph = Graph::read();
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    for id in &graph.ours {
        let name = graph.names[id].as_str();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} has no rule: add it to MAY_IMPORT"));
        for dep in graph.normal[id].iter().filter(|dep| graph.ours.contains(*dep)) {
            let dep = graph.names[dep].as_str();
            assert!(may.contains(&dep), "{name} imports {dep}; it may import {may:?}");
        }
    }
}

#[test]
fn heavy_dependencies_have_one_home() {
    let graph = Graph::read();
    for id in &graph.ours {
        let name = graph.names[id].as_str();
        for dep in &graph.normal[id] {
            let dep = graph.names[dep].as_str();
            if let Some((_, homes)) = HOMES.iter().find(|(heavy, _)| *heavy == dep) {
                assert!(homes.contains(&name), "{name} names {dep}, whose home is {homes:?}");
            }
        }
    }
}

#[test]
fn some_things_are_out_of_reach() {
    let graph = Graph::read();
    for (from, prefix, why) in UNREACHABLE {
        let found: Vec<String> = graph.reachable(from).into_iter().filter(|n| n.starts_with(prefix)).collect();
        assert!(found.is_empty(), "{from} reaches {found:?}: {why}");
    }
    assert!(graph.reachable("forge-agent").contains("wasmtime"), "the check above would see wasmtime if it were there");
}

#[test]
fn dependencies_come_from_the_registry_with_known_licences() {
    let graph = Graph::read();
    for package in &graph.packages {
        let name = package["name"].as_str().unwrap();
        match package["source"].as_str() {
            None => assert!(graph.ours.contains(package["id"].as_str().unwrap()), "{name} is a path outside the house"),
            Some(source) => assert!(source.starts_with("registry+"), "{name} comes from {source}"),
        }
        let Some(license) = package["license"].as_str() else { panic!("{name} states no licence") };
        let good = license.replace('/', " OR ").split(" AND ").all(|all| {
            let any = all.trim().trim_matches(['(', ')']);
            any.split(" OR ").any(|one| LICENSES.contains(&one.trim().trim_matches(['(', ')'])))
        });
        assert!(good, "{name}: licence '{license}' is not on the list");
    }
}

#[test]
fn one_tls_provider() {
    let graph = Graph::read();
    for id in &graph.ours {
        let reach = graph.reachable(&graph.names[id]);
        let providers = ["aws-lc-rs", "openssl-sys", "native-tls"];
        assert!(providers.iter().all(|p| !reach.contains(*p)), "{} reaches a second TLS provider", graph.names[id]);
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![folder.to_path_buf()];
    while let Some(folder) = queue.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The source without its test modules and comments.
fn product_text(path: &Path) -> String {
    if path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests") {
        return String::new();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn pure_crates_name_nothing_impure() {
    for folder in ["crates/contract/src", "crates/lifecycle/src"] {
        for path in sources(&root().join(folder)) {
            let text = product_text(&path);
            for word in IMPURE {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn reduce_cannot_see_who_computed() {
    let folder = root().join("crates/lifecycle/src/reduce");
    let files = sources(&folder);
    assert!(!files.is_empty(), "reduce lies in {}", folder.display());
    for path in files {
        assert!(!product_text(&path).contains("AgentId"), "{} sees an AgentId", path.display());
    }
}

#[test]
fn only_process_starters_of_the_cli_know_hub_and_agent() {
    // `offline` is for what is done to a hub's data directory where no hub need run.
    let knows = ["forge_hub", "forge_agent"];
    for path in sources(&root().join("crates/cli/src")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = product_text(&path);
        let starter = ["hub", "agent", "up", "main", "doctor", "offline"].contains(&name.as_str());
        assert!(starter || !knows.iter().any(|k| text.contains(k)), "{} knows the hub or the agent", path.display());
    }
}

#[test]
fn guests_know_no_host_crate() {
    for lock in ["workloads/Cargo.lock", "sdk-guest/Cargo.lock"] {
        let Ok(text) = std::fs::read_to_string(root().join(lock)) else { continue };
        for host in ["forge-contract", "forge-lifecycle", "forge-sandbox", "wasmtime"] {
            assert!(!text.contains(&format!("name = \"{host}\"")), "{lock} names {host}");
        }
    }
}

/// Top-level modules of a crate and which of them each one uses.
fn module_graph(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(src) {
        let inside = path.strip_prefix(src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if ["lib", "main", "bin"].contains(&first.as_str()) {
            continue;
        }
        let text = product_text(&path);
        let uses = text.match_indices("crate::").map(|(at, found)| {
            let rest = &text[at + found.len()..];
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
        });
        graph.entry(first.clone()).or_default().extend(uses.filter(|used| *used != first));
    }
    let known: BTreeSet<String> = graph.keys().cloned().collect();
    for uses in graph.values_mut() {
        uses.retain(|used| known.contains(used));
    }
    graph
}

#[test]
fn modules_form_no_circle() {
    let crates = [
        "crates/contract",
        "crates/lifecycle",
        "crates/protocol",
        "crates/sandbox",
        "crates/telemetry",
        "hub",
        "agent",
        "crates/cli",
    ];
    for folder in crates {
        let mut graph = module_graph(&root().join(folder).join("src"));
        while !graph.is_empty() {
            let free: Vec<String> = graph.iter().filter(|(_, uses)| uses.is_empty()).map(|(m, _)| m.clone()).collect();
            assert!(!free.is_empty(), "{folder}: a circle among {graph:?}");
            for module in free {
                graph.remove(&module);
                graph.values_mut().for_each(|uses| {
                    uses.remove(&module);
                });
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    for top in ["hub", "agent", "crates", "tests", "workloads", "sdk-guest", "examples"] {
        for path in sources(&root().join(top)) {
            // A row of a table of constants is not read, it is checked.
            let is_row =
                |l: &str| l.starts_with(' ') && l.chars().all(|c| "0123456789.-+e_x,()[]f64u32 abcd".contains(c));
            let lines = std::fs::read_to_string(&path).unwrap().lines().filter(|l| !is_row(l)).count();
            assert!(lines <= 700, "{} has {lines} lines: split it by noun", path.display());
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let vague = ["utils", "util", "common", "misc", "helpers", "manager"];
            assert!(!vague.contains(&stem.as_str()), "{}: name it by its noun", path.display());
        }
    }
}

#[test]
fn the_top_level_is_the_product() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "hub",
        "agent",
        "workloads",
        "wit",
        "sdk-guest",
        "tests",
        "examples",
        "crates",
        "docs",
        "rust-toolchain.toml",
        "deny.toml",
        "clippy.toml",
        "rustfmt.toml",
        "target",
        "LICENSE",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} does not belong at the top");
    }
}
