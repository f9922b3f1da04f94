//! Evidence as auditors use it: fetched, verified offline, tampered with, replayed here and on the pool.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Output;

use forge_contract::Digest;
use forge_contract::report::result_digest;
use forge_lifecycle::artifact::{Artifact, Entry};
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::bundle::leaf::ShardRecord;
use forge_lifecycle::bundle::{Index, decode};
use forge_protocol::Identity;
use forge_tests::binary::{forgepool, root};
use forge_tests::component;
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

/// Runs `forgepool` without a hub in its environment.
pub(crate) async fn offline(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(forgepool());
    command.args(args.iter().map(OsString::from)).env_remove("FORGEPOOL_URL").env_remove("FORGEPOOL_API_KEY");
    forge_tests::within("end of the command", command.current_dir(root()).output()).await.expect("it starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts an exit code and that every piece is said.
pub(crate) fn expect(output: &Output, code: i32, pieces: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for piece in pieces {
        assert!(said.contains(piece), "{piece:?} is not in\n{said}");
    }
}

pub(crate) async fn bundle_of(pool: &Pool, job: &str, slim: bool) -> Vec<u8> {
    let path = format!("/api/v0/jobs/{job}/evidence?slim={slim}");
    let response = pool.api.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

type Leaves = BTreeMap<String, (String, Vec<u8>)>;

fn leaves(bytes: &[u8]) -> Leaves {
    let bundle = decode(bytes).unwrap();
    let leaf = |(entry, content): (&Entry, Option<&[u8]>)| {
        (entry.name.clone(), (entry.media_type.clone(), content.unwrap().to_vec()))
    };
    bundle.leaves().map(leaf).collect()
}

/// A bundle that a liar made of another: leaves changed, everything hashed anew and signed with a key of the liar's.
pub(crate) fn forged(bytes: &[u8], change: impl FnOnce(&mut Leaves)) -> Vec<u8> {
    let mut leaves = leaves(bytes);
    change(&mut leaves);
    let artifacts: Vec<Artifact> =
        leaves.into_iter().map(|(name, (kind, content))| Artifact::new(name, kind, content)).collect();
    let liar = Identity::from_seed(&[66; 32]);
    let entries = artifacts.iter().map(|artifact| artifact.entry.clone()).collect();
    let job = decode(bytes).unwrap().index.job;
    let index = Index::seal(job, entries, Key(liar.public_key()), |root| liar.sign(root)).unwrap();
    let mut forged = index.head(|_| true);
    artifacts.iter().for_each(|artifact| forged.extend_from_slice(&artifact.content));
    forged
}

/// The liar says that this unit gave something else, wherever the evidence speaks of it.
fn lie_about(leaves: &mut Leaves, unit: u64) {
    let mut shards: Vec<ShardRecord> = serde_json::from_slice(&leaves["shards_json"].1).unwrap();
    let mut executions: Vec<Value> = serde_json::from_slice(&leaves["executions_json"].1).unwrap();
    let holds =
        |shard: &&mut ShardRecord| (shard.first_unit..shard.first_unit + shard.units.len() as u64).contains(&unit);
    let shard = shards.iter_mut().find(holds).unwrap();
    let at = usize::try_from(unit - shard.first_unit).unwrap();
    shard.units[at].digest = Digest::of(b"another fragment");
    shard.fragment = Digest::of(b"the fold with it");
    shard.result = result_digest(&shard.fragment, &shard.units);
    for execution in &mut executions {
        // Those that agreed agreed with the lie.
        if execution["shard_id"] == format!("{}/{}", shard.stage, shard.shard) {
            execution["result_hash"] = json!(shard.result);
        }
        // The agents' keys are not the liar's to sign with.
        execution.as_object_mut().unwrap().remove("signature");
    }
    leaves.get_mut("shards_json").unwrap().1 = serde_json::to_vec(&shards).unwrap();
    leaves.get_mut("executions_json").unwrap().1 = serde_json::to_vec(&executions).unwrap();
}

#[tokio::test]
async fn a_bundle_is_verified_offline_and_every_lie_is_found_by_its_check() {
    let pool = Pool::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let contract = changed(insurance(2_000_000), &[("/policy/shards", json!(8)), ("/policy/verify", json!("quorum"))]);
    let job = pool.api.execute(&contract).await.job();
    let other = changed(contract.clone(), &[("/seed/value", json!("ANOTHER"))]);
    let other = pool.api.execute(&other).await.job();
    let hub_key = pool.ready["hub_key"].as_str().unwrap().to_owned();

    // As a user fetches it.
    let file = folder.path().join("job.evidence");
    let file = file.to_str().unwrap();
    let (url, key) = (pool.api.url.clone(), pool.api.key.clone());
    expect(&offline(&["evidence", &job, "-o", file, "--url", &url, "--key", &key]).await, 0, &["leaves", &hub_key]);
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes == bundle_of(&pool, &job, false).await);
    let others = bundle_of(&pool, &other, false).await;
    pool.stop().await;

    // No hub any more.
    expect(
        &offline(&["verify", file, "--hub-key", &hub_key]).await,
        0,
        &["the key given", "8 shards, 8 copies and 0 looks, each signed"],
    );
    expect(&offline(&["verify", file]).await, 0, &["WHO signed it was not checked", &hub_key]);
    let json: Value = serde_json::from_slice(&offline(&["verify", file, "--json"]).await.stdout).unwrap();
    assert_eq!((&json["ok"], &json["job"]), (&json!(true), &json!(job)));
    expect(&offline(&["replay", file]).await, 0, &["EQUAL", "31 of 31 units"]);

    // One bit of one leaf.
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let flipped = write(folder.path(), "flipped", &flipped);
    expect(&offline(&["verify", &flipped]).await, 8, &["DOES NOT HOLD: contents", "verification_json"]);

    // A liar's: consistent in itself, signed anew.
    let liar = Key(Identity::from_seed(&[66; 32]).public_key()).to_string();
    let lie = write(folder.path(), "lie", &forged(&bytes, |leaves| lie_about(leaves, 17)));
    expect(&offline(&["verify", &lie]).await, 0, &["0 of 8 shards carry their agent's signature", &liar]);
    expect(&offline(&["verify", &lie, "--hub-key", &hub_key]).await, 8, &["signature", &liar, &hub_key]);
    expect(&offline(&["replay", &lie]).await, 6, &["DIFFERENT: stage 'simulate', unit 17 is the first"]);
    expect(&offline(&["replay", &lie, "--units", "17..19", "-q"]).await, 6, &["unit 17 is the first"]);
    expect(&offline(&["replay", &lie, "--units", "18..19", "--stage", "simulate"]).await, 0, &["2 of 31 units"]);

    // Where the copies are forgotten, their verdicts speak.
    let one_sided = |leaves: &mut Leaves| {
        lie_about(leaves, 17);
        let mut executions: Vec<Value> = serde_json::from_slice(&leaves["executions_json"].1).unwrap();
        executions.iter_mut().filter(|e| e["reason"] != "first").for_each(|e| e["result_hash"] = Value::Null);
        leaves.get_mut("executions_json").unwrap().1 = serde_json::to_vec(&executions).unwrap();
    };
    let one_sided = write(folder.path(), "one-sided", &forged(&bytes, one_sided));
    expect(&offline(&["verify", &one_sided]).await, 8, &["DOES NOT HOLD"]);

    // The folded fragment, output and result of another job: every unit is right, and what is made of them is not.
    let others = leaves(&others);
    let swap = |leaves: &mut Leaves| {
        for name in ["fragment_simulate", "result_json"] {
            leaves.insert(name.into(), others[name].clone());
        }
        let mut outcome: Value = serde_json::from_slice(&leaves["outcome_json"].1).unwrap();
        let theirs: Value = serde_json::from_slice(&others["outcome_json"].1).unwrap();
        outcome["result"] = theirs["result"].clone();
        leaves.get_mut("outcome_json").unwrap().1 = serde_json::to_vec(&outcome).unwrap();
    };
    let swapped = write(folder.path(), "swapped", &forged(&bytes, swap));
    expect(&offline(&["verify", &swapped]).await, 0, &["holds"]);
    expect(
        &offline(&["replay", &swapped]).await,
        6,
        &["every unit is as recorded, but the fragment of stage 'simulate'"],
    );

    // An output that its fragments do not give, a cheaper bill, another plan: found without running anything.
    let edit = |leaf: &'static str, pointer: &'static str, value: Value| {
        forged(&bytes, move |leaves| {
            let mut found: Value = serde_json::from_slice(&leaves[leaf].1).unwrap();
            *found.pointer_mut(pointer).unwrap() = value;
            leaves.get_mut(leaf).unwrap().1 = serde_json::to_vec(&found).unwrap();
        })
    };
    for (leaf, pointer, value, check) in [
        ("result_json", "/loss/mean", json!(1.0), "/loss/mean"),
        ("ledger_json", "/0/credits_micro", json!("1"), "credits_micro is '1'"),
        ("plan_json", "/stages/0/units", json!(32), "plan"),
        ("verification_json", "/checked", json!(0), "its counts are not those"),
    ] {
        let edited = write(folder.path(), leaf, &edit(leaf, pointer, value));
        expect(&offline(&["verify", &edited]).await, 8, &[check]);
    }
    // A copy that its agent never signed.
    let unsaid = forged(&bytes, |leaves| {
        let mut executions: Vec<Value> = serde_json::from_slice(&leaves["executions_json"].1).unwrap();
        let other = executions.iter().find(|e| e["reason"] == "first").unwrap()["signature"].clone();
        executions.iter_mut().find(|e| e["reason"] == "check").unwrap()["signature"] = other;
        leaves.get_mut("executions_json").unwrap().1 = serde_json::to_vec(&executions).unwrap();
    });
    let unsaid = write(folder.path(), "unsaid", &unsaid);
    expect(&offline(&["verify", &unsaid]).await, 8, &["DOES NOT HOLD: agents", "signature is not that of agent"]);
    expect(&offline(&["verify", "Cargo.toml"]).await, 8, &["no evidence bundle"]);
    expect(&offline(&["replay", file, "--units", "40"]).await, 1, &["no unit 40", "0 to 30"]);
    expect(&offline(&["replay", file, "--units", "3", "--stage", "x"]).await, 1, &["no stage 'x'", "simulate"]);
}

#[tokio::test]
async fn a_yanked_version_replays_on_the_pool_and_from_a_slim_bundle() {
    let mut pool = Pool::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let wasm = component::kernel("default/counter", 1, "");
    pool.api.upload(&wasm).await;
    assert_eq!(pool.api.decided("default/counter/1").await["state"], "admitted");
    let first = pool.api.execute(&component::contract("default/counter", 1, 200)).await;
    pool.api.upload(&component::kernel("default/counter", 2, "(func)")).await;
    let request = pool.api.request(Method::PATCH, "/api/v0/kernels/default/counter/1");
    let yank = request.header("content-type", "application/json").body(json!({"state": "yanked"}).to_string());
    assert_eq!(pool.api.send(yank).await.status, 200);

    let path = format!("/api/v0/jobs/{}/replay", first.job());
    let replayed = pool.api.send(pool.api.request(Method::POST, &path)).await;
    assert_eq!(replayed.at("/replay"), &json!({"of": first.job(), "verdict": "equal"}), "{}", replayed.text);
    assert_eq!(digest(&replayed.body), digest(&first.body));
    pool.kill_hub().await;
    pool.restart_hub().await;
    let (url, key, job) = (pool.api.url.clone(), pool.api.key.clone(), first.job());
    let again = offline(&["replay", "--job", &job, "--url", &url, "--key", &key]).await;
    expect(&again, 0, &["EQUAL: every unit gave the bits of job", &job]);

    let slim = write(folder.path(), "slim", &bundle_of(&pool, &job, true).await);
    pool.stop().await;
    expect(&offline(&["verify", &slim]).await, 0, &["left out: component_wasm"]);
    expect(&offline(&["replay", &slim]).await, 1, &["--component FILE", &Digest::of(&wasm).to_string()]);
    let other = write(folder.path(), "other.wasm", &component::kernel("default/counter", 2, "(func)"));
    expect(&offline(&["replay", &slim, "--component", &other]).await, 1, &["the plan pins"]);
    let component = write(folder.path(), "counter.wasm", &wasm);
    for backend in ["cranelift", "cranelift-plain", "pulley"] {
        let replayed = offline(&["replay", &slim, "--component", &component, "--backend", backend]).await;
        expect(&replayed, 0, &["EQUAL"]);
    }
}

#[tokio::test]
async fn a_replay_goes_on_over_a_restart_of_the_hub() {
    let mut pool = Pool::start(2).await;
    let contract = changed(insurance(8_000_000), &[("/policy/shards", json!(64))]);
    let first = pool.api.execute(&contract).await;
    let path = format!("/api/v0/jobs/{}/replay", first.job());
    let request = pool.api.request(Method::POST, &path).header("prefer", "respond-async");
    let replay = pool.api.send(request).await;
    assert_eq!(replay.status, 202, "{}", replay.text);
    let mut events = pool.api.events(&replay.job()).await;
    let under_way = |event: &forge_tests::api::Event| event.data["shards_done"].as_u64().is_some_and(|done| done > 0);
    let event = events.find("a shard of the replay", under_way).await;
    assert_eq!(event.data["replay_of"], first.job());
    pool.kill_hub().await;
    pool.restart_hub().await;
    let ended = pool.api.finished(&replay.job()).await;
    assert_eq!(ended["replay"], json!({"of": first.job(), "verdict": "equal"}), "{ended:#}");
    pool.stop().await;
}

/// A bundle that another checkout made. `FORGEPOOL_RECORD_GOLDEN=1` makes it anew.
#[tokio::test]
async fn a_bundle_of_another_checkout_replays_to_the_same_bits() {
    let file = root().join("tests/golden/noop.evidence");
    if std::env::var_os("FORGEPOOL_RECORD_GOLDEN").is_some() {
        let pool = Pool::start(2).await;
        let contract = json!({
            "ctx": {}, "op": {"name": "noop", "version": 1, "profile": "count.v1"},
            "seed": {"mode": "explicit", "value": "GOLDEN"}, "policy": {"verify": "quorum", "shards": 4},
            "args": {"units": 24}
        });
        let job = pool.api.execute(&contract).await.job();
        std::fs::write(&file, bundle_of(&pool, &job, false).await).unwrap();
        pool.stop().await;
    }
    let file = file.to_str().unwrap();
    let signer = decode(&std::fs::read(file).unwrap()).unwrap().index.signature.public_key.to_string();
    expect(&offline(&["verify", file, "--hub-key", &signer]).await, 0, &["the bundle holds, and the hub"]);
    for backend in ["cranelift", "pulley"] {
        expect(&offline(&["replay", file, "--backend", backend]).await, 0, &["EQUAL: every unit", "24 of 24 units"]);
    }
}
