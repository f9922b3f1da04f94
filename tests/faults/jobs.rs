//! Jobs to disturb, and what must hold of them afterwards.

use std::collections::{BTreeMap, BTreeSet};

use forge_tests::api::is_final;
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::until;
use serde_json::{Value, json};

/// Agents of which many fit into one process; here they do their work.
pub const SABOTEUR: &str = env!("CARGO_BIN_EXE_forge-saboteur");

/// How much longer than usual everything is.
pub fn times() -> u64 {
    std::env::var("FORGEPOOL_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Units of a shard where nothing else is said: a few milliseconds.
const UNITS: u64 = 4;
/// Units of a shard of a job that must still be under way when something happens, however slowly it is asked.
const UNITS_LONG: u64 = 32;
/// Iterations of a unit of mc@1.
const UNIT_ITEMS: u64 = 65_536;

/// A job of `shards` shards in which a shard takes a noticeable time, checked by nothing but its structure: every
/// answer that counts is then one attempt.
pub fn contract(shards: u64) -> Value {
    contract_of(shards, UNITS)
}

/// The same with shards that take eight times as long.
pub fn long_contract(shards: u64) -> Value {
    contract_of(shards, UNITS_LONG)
}

/// The same with shards that do nothing: their leases are as short as the hub's shortest, for next to no work is assumed
/// of them.
pub fn idle_contract(shards: u64) -> Value {
    let op = json!({"name": "noop", "version": 1, "profile": "count.v1"});
    unchecked(shards, &changed(insurance(1), &[("/op", op), ("/args", json!({"units": shards}))]))
}

fn contract_of(shards: u64, units: u64) -> Value {
    unchecked(shards, &insurance(shards * units * UNIT_ITEMS))
}

fn unchecked(shards: u64, contract: &Value) -> Value {
    let changes = [
        ("/policy/shards", json!(shards)),
        ("/policy/max_agents", json!(0)),
        ("/policy/verify", json!("none")),
        ("/seed/value", json!("faults")),
    ];
    changed(contract.clone(), &changes)
}

/// What counts of a job: the digest of its result and what it cost.
#[derive(Debug, PartialEq, Eq)]
pub struct Worth {
    digest: String,
    credits_micro: u64,
    shards: u64,
}

impl Worth {
    /// How many shards the job was cut into.
    pub fn shards(&self) -> u64 {
        self.shards
    }
}

/// What a job that completed is worth.
pub fn worth(state: &Value) -> Worth {
    assert_eq!(state["status"], "COMPLETED", "{state:#}");
    let text = |pointer: &str| state.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |pointer: &str| state.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{state:#}"));
    Worth {
        digest: text("/hub/replay/result_digest"),
        credits_micro: number("/billing/credits_micro"),
        shards: number("/hub/metrics/shards"),
    }
}

/// What the job is worth where nothing happens.
pub async fn undisturbed(contract: &Value) -> Worth {
    let pool = Pool::start(2).await;
    let worth = worth(&pool.api.execute(contract).await.body);
    pool.stop().await;
    worth
}

/// Waits until a job has this many finished shards, or is over. Asks again where the hub is away.
pub async fn reached(pool: &Pool, job: &str, shards: u64) {
    until("progress of the job", || async {
        let request = pool.api.request(reqwest::Method::GET, &format!("/api/v0/jobs/{job}"));
        let state = pool.api.try_send(request).await.ok()?.body;
        let done = state.pointer("/progress/shards_done").and_then(Value::as_u64).unwrap_or(0);
        (done >= shards || is_final(&state)).then_some(())
    })
    .await;
}

/// Waits for the job's end, over restarts of the hub.
pub async fn ended(pool: &Pool, job: &str) -> Value {
    until("end of the job", || async {
        let request = pool.api.request(reqwest::Method::GET, &format!("/api/v0/jobs/{job}"));
        let state = pool.api.try_send(request).await.ok()?.body;
        is_final(&state).then_some(state)
    })
    .await
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

/// How many attempts ended like this.
pub fn count(attempts: &[Value], status: &str) -> usize {
    attempts.iter().filter(|attempt| attempt["status"] == status).count()
}

/// Each lease is one attempt, and each shard has exactly one answer that counts, beside those that only checked it. Over
/// a restart of the hub an answer may be recorded whose acceptance was not; then there is at least one.
pub fn nothing_counts_twice(attempts: &[Value], shards: u64, restarted: bool) {
    let mut leases = BTreeSet::new();
    let mut answers: BTreeMap<u64, u64> = (0..shards).map(|shard| (shard, 0)).collect();
    for attempt in attempts {
        let (lease, shard) = (attempt["lease"].as_u64().unwrap(), attempt["shard"].as_u64().unwrap());
        assert!(leases.insert((lease, attempt["status"].to_string())), "lease {lease} ended twice: {attempt:#}");
        if attempt["status"] == "REPORTED" && attempt["reason"] != "check" {
            *answers.get_mut(&shard).unwrap() += 1;
        }
    }
    for (shard, answers) in answers {
        assert!(answers == 1 || (restarted && answers >= 1), "shard {shard} has {answers} answers that count");
    }
}
