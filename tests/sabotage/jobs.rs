//! The job of these tests, who is in the pool, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};

use forge_tests::binary::forgepool;
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::{until, within};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The liars' program.
pub const SABOTEUR: &str = env!("CARGO_BIN_EXE_forge-saboteur");
/// Shards of the job.
pub const SHARDS: usize = 200;
/// A pool of agents that do their work, each an owner of its own; the operator runs none of them.
pub async fn strangers(count: usize, hub_args: &[&str]) -> Pool {
    let mut pool = Pool::start_with(0, hub_args).await;
    pool.join_strangers(count).await;
    pool
}

/// 200 shards of two units: the fold of a shard is more than its units' commitments.
pub fn contract(verify: &str) -> Value {
    let changes = [
        ("/policy/shards", json!(SHARDS)),
        ("/policy/max_agents", json!(0)),
        ("/policy/verify", json!(verify)),
        ("/seed/value", json!("sabotage")),
    ];
    changed(insurance(SHARDS as u64 * 2 * 65_536), &changes)
}

/// The digest of the result where everybody is honest.
pub async fn honest() -> &'static str {
    static DIGEST: OnceCell<String> = OnceCell::const_new();
    let computing = || async {
        let pool = Pool::start(2).await;
        let state = pool.api.execute(&contract("none")).await.body;
        let digest = digest(&state);
        pool.stop().await;
        digest
    };
    DIGEST.get_or_init(computing).await
}

/// The digest of a completed job's result.
pub fn digest(state: &Value) -> String {
    assert_eq!(state["status"], "COMPLETED", "{state:#}");
    state["hub"]["replay"]["result_digest"].as_str().unwrap_or_else(|| panic!("no digest in {state:#}")).to_owned()
}

/// Every attempt of a job.
pub async fn attempts(pool: &Pool, job: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let path = format!("/api/v0/jobs/{job}/executions?limit=1000&offset={}", all.len());
        let page = pool.api.get(&path).await;
        let items = page.body["items"].as_array().unwrap_or_else(|| panic!("{}", page.text)).clone();
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

/// The agents by id.
pub async fn agents(pool: &Pool) -> BTreeMap<String, Value> {
    let listed = pool.api.get("/api/v0/agents").await;
    let items = listed.body["items"].as_array().unwrap_or_else(|| panic!("{}", listed.text)).clone();
    items.into_iter().map(|agent| (agent["agent_id"].as_str().unwrap().to_owned(), agent)).collect()
}

/// Waits until exactly these agents are quarantined, which is recorded beside the job's end; gives their codes.
pub async fn quarantined(pool: &Pool, expected: &[String]) -> BTreeSet<String> {
    let expected: BTreeSet<&String> = expected.iter().collect();
    until("quarantine of the liars", || async {
        let agents = agents(pool).await;
        let out = || agents.iter().filter(|(_, agent)| agent["quarantined"] == true);
        for (id, agent) in out() {
            assert!(expected.contains(id), "an honest agent is out: {agent:#}");
        }
        let codes = out().filter_map(|(_, agent)| agent["quarantine_code"].as_str().map(str::to_owned)).collect();
        (out().count() == expected.len()).then_some(codes)
    })
    .await
}

/// Asserts that the job's evidence holds, offline, and gives its verification report.
pub async fn evidence(pool: &Pool, job: &str) -> Value {
    let file = pool.dir().join(format!("{job}.evidence"));
    let file = file.to_str().unwrap();
    let key = pool.ready["hub_key"].as_str().unwrap();
    let fetch = ["evidence", job, "--slim", "-o", file, "--url", &pool.api.url, "--key", &pool.api.key];
    for args in [&fetch[..], &["verify", file, "--hub-key", key]] {
        let mut command = Command::new(forgepool());
        command.args(args).env_remove("FORGEPOOL_URL").env_remove("FORGEPOOL_API_KEY");
        let output = within("end of the command", command.output()).await.unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{args:?}: {said}");
        let signed = args[0] != "verify" || said.contains("each signed by its agent");
        assert!(signed, "answers, copies or looks without signature: {said}");
    }
    pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/verification_json")).await.body
}

/// Asserts that what the evidence says of every shard was said by an agent that is not out, once; gives the number of
/// attempts.
pub async fn settled(pool: &Pool, job: &str, liars: &[String]) -> usize {
    let shards = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/shards_json")).await;
    let shards = shards.body.as_array().unwrap_or_else(|| panic!("{}", shards.text)).clone();
    assert_eq!(shards.len(), SHARDS);
    let attempts = attempts(pool, job).await;
    let results: BTreeMap<u64, &Value> = attempts
        .iter()
        .filter(|attempt| !attempt["result_hash"].is_null())
        .map(|attempt| (attempt["lease"].as_u64().unwrap(), &attempt["result_hash"]))
        .collect();
    for shard in &shards {
        let agreed = shard["verdict"]["agreed"].as_array().unwrap();
        let behind = std::iter::once(&shard["agent"]).chain(agreed).filter_map(Value::as_str);
        let trusted = behind.filter(|agent| !liars.iter().any(|liar| liar == agent)).count();
        assert!(trusted > 0, "only liars stand behind {shard:#}");
        assert_eq!(results.get(&shard["lease"].as_u64().unwrap()), Some(&&shard["result"]), "{shard:#}");
    }
    attempts.len()
}
