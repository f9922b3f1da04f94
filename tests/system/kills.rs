//! `kill -9` of the hub at random, under a mixed load: whatever was acknowledged is there, once, with one result, charged
//! once; nothing is held any more; the books balance.
//!
//! A quick run kills a few times; `FORGEPOOL_KILLS=N` kills N times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forge_tests::api::{Answer, Api, is_final};
use forge_tests::contract::{changed, insurance};
use forge_tests::dice::Dice;
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answers::digest;
use crate::books::{audited, chain};

/// How often the hub dies in a quick run.
const KILLS: u64 = 6;
const SEEDS: [&str; 2] = ["A", "B"];
const WORKERS: u64 = 5;

fn kills() -> u64 {
    std::env::var("FORGEPOOL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS).max(1)
}

fn contract(seed: &str, iterations: u64) -> Value {
    let changes = [
        ("/ctx/billing", json!({"mode": "billable"})),
        ("/policy/shards", json!(4)),
        ("/policy/max_agents", json!(0)),
        ("/policy/verify", json!("spotcheck")),
        ("/seed/value", json!(seed)),
    ];
    changed(insurance(iterations), &changes)
}

/// What clients were told, over all deaths of the hub.
#[derive(Debug, Default)]
struct Told {
    /// Jobs that were acknowledged, and the seed each is of.
    jobs: BTreeMap<String, &'static str>,
    /// The job of each idempotency key.
    keys: BTreeMap<String, (String, &'static str)>,
    /// Jobs whose cancellation was acknowledged.
    cancelled: BTreeSet<String>,
    /// Content that was acknowledged.
    blobs: BTreeMap<String, Vec<u8>>,
    /// Answers with a result, which may never be another one.
    results: BTreeMap<String, String>,
}

impl Told {
    fn job(&mut self, answer: &Answer, seed: &'static str) -> String {
        let job = answer.job();
        self.jobs.insert(job.clone(), seed);
        if answer.status == StatusCode::OK && answer.body["status"] == "COMPLETED" {
            let said = self.results.entry(job.clone()).or_insert_with(|| digest(&answer.body));
            assert_eq!(*said, digest(&answer.body), "job {job} has two results");
        }
        job
    }
}

/// What the load shares.
struct Load {
    api: Api,
    told: Mutex<Told>,
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl Load {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// An answer, however often the hub dies before it gives one; `None` once the load is over.
    async fn ask(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Option<Answer> {
        until("answer between two deaths", || async {
            match self.api.try_send(request()).await {
                Ok(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => Some(Some(answer)),
                _ if self.over.load(Ordering::SeqCst) => Some(None),
                // The hub is away or just going.
                _ => None,
            }
        })
        .await
    }

    /// Something was acknowledged.
    fn count(&self) {
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    fn execute(&self, contract: &Value, key: Option<&str>, later: bool) -> reqwest::RequestBuilder {
        let request = self.api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let request = if later { request.header("prefer", "respond-async") } else { request };
        request.body(contract.to_string())
    }

    /// One thing after the other until the load is over.
    async fn work(&self, number: u64) {
        let mut dice = Dice::new(0x6b11 + number);
        for round in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let seed = SEEDS[usize::try_from(dice.below(2)).unwrap()];
            let key = format!("worker-{number}-{round}");
            match dice.below(5) {
                0 => self.keyed(&key, seed, false).await,
                1 => self.keyed(&key, seed, true).await,
                2 => self.unkeyed(seed).await,
                3 => self.cancelled(&key).await,
                _ => self.blob(&key).await,
            }
        }
    }

    /// Asks under a key until there is an answer: always the same job.
    async fn keyed(&self, key: &str, seed: &'static str, later: bool) {
        let contract = contract(seed, 262_144);
        let Some(answer) = self.ask(|| self.execute(&contract, Some(key), later)).await else { return };
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
        let job = self.told().job(&answer, seed);
        self.told().keys.insert(key.to_owned(), (job.clone(), seed));
        self.count();
        let Some(again) = self.ask(|| self.execute(&contract, Some(key), true)).await else { return };
        assert_eq!(again.job(), job, "the same key is the same job");
    }

    /// Asks once: what was not answered may be there or not.
    async fn unkeyed(&self, seed: &'static str) {
        let contract = contract(seed, 131_072);
        if let Ok(answer) = self.api.try_send(self.execute(&contract, None, false)).await
            && answer.status == StatusCode::OK
        {
            self.told().job(&answer, seed);
            self.count();
        }
    }

    async fn cancelled(&self, key: &str) {
        let contract = contract("long", 60_000_000);
        let Some(answer) = self.ask(|| self.execute(&contract, Some(key), true)).await else { return };
        assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
        let job = self.told().job(&answer, "long");
        self.count();
        let path = format!("/api/v0/jobs/{job}/cancel");
        loop {
            // A cancellation is a wish until the job is over: a hub that dies in between has to be asked again.
            let Some(answer) = self.ask(|| self.api.request(Method::POST, &path)).await else { return };
            assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
            if answer.body["status"] == "CANCELLED" {
                self.told().cancelled.insert(job);
                return;
            }
        }
    }

    async fn blob(&self, key: &str) {
        let bytes = key.as_bytes().repeat(2_000);
        let digest = forge_contract::Digest::of(&bytes).to_string();
        let path = format!("/api/v0/blobs/{digest}?bytes={}", bytes.len());
        let Some(answer) = self.ask(|| self.api.request(Method::PUT, &path).body(bytes.clone())).await else { return };
        // Cut off in the middle, an upload goes on where it stands: another time, under another name.
        if answer.status.is_success() {
            self.told().blobs.insert(digest, bytes);
            self.count();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_dies_at_random_loses_nothing_and_charges_once() {
    let mut dice = Dice::new(0xdead_b00c);
    let mut pool = Pool::start(2).await;
    let mut expected = BTreeMap::new();
    for seed in SEEDS {
        for iterations in [262_144, 131_072] {
            let body = pool.api.execute(&contract(seed, iterations)).await.body;
            expected.insert((seed, body["hub"]["metrics"]["iterations"].as_u64().unwrap()), digest(&body));
        }
    }
    let load = Arc::new(Load {
        api: pool.api.clone(),
        told: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let load = Arc::clone(&load);
            tokio::spawn(async move { load.work(number).await })
        })
        .collect();
    for _ in 0..kills() {
        // Some deaths come right after the start, most after a few answers.
        let target = load.acknowledged.load(Ordering::SeqCst) + dice.below(8);
        until("answers between two deaths", || async {
            (load.acknowledged.load(Ordering::SeqCst) >= target).then_some(())
        })
        .await;
        pool.kill_hub().await;
        pool.restart_hub().await;
    }
    load.over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let told = std::mem::take(&mut *load.told());
    everything_is_there_once(&pool, &told, &expected).await;
    println!(
        "{} deaths, {} answers: {} jobs acknowledged, {} keys, {} cancelled, {} blobs",
        kills(),
        load.acknowledged.load(Ordering::SeqCst),
        told.jobs.len(),
        told.keys.len(),
        told.cancelled.len(),
        told.blobs.len()
    );
    assert!(told.jobs.len() as u64 >= kills(), "the load was too light to tell anything");
    pool.stop().await;
}

async fn everything_is_there_once(pool: &Pool, told: &Told, expected: &BTreeMap<(&str, u64), String>) {
    let api = &pool.api;
    // Long jobs whose cancellation was never heard would take minutes.
    for (job, _) in told.jobs.iter().filter(|(_, seed)| **seed == "long") {
        api.cancel(job).await;
    }
    for (job, seed) in &told.jobs {
        let state = until("end of a job", || async {
            let answer = api.get(&format!("/api/v0/jobs/{job}")).await;
            assert_eq!(answer.status, 200, "job {job} was acknowledged and is lost: {}", answer.text);
            is_final(&answer.body).then_some(answer.body)
        })
        .await;
        if *seed == "long" {
            assert_eq!(state["status"], "CANCELLED", "{state:#}");
            continue;
        }
        let iterations = state["hub"]["metrics"]["iterations"].as_u64().unwrap();
        assert_eq!(digest(&state), expected[&(*seed, iterations)], "job {job} has another result");
        if let Some(said) = told.results.get(job) {
            assert_eq!(&digest(&state), said, "job {job} has another result than it was answered with");
        }
    }
    for job in &told.cancelled {
        let state = api.get(&format!("/api/v0/jobs/{job}")).await;
        assert_eq!(state.body["status"], "CANCELLED", "{}", state.text);
    }
    for (key, (job, seed)) in &told.keys {
        let request = api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        let request = request.header("idempotency-key", key).body(contract(seed, 262_144).to_string());
        assert_eq!(&api.send(request).await.job(), job, "the key {key} is another job now");
    }
    for (digest, bytes) in &told.blobs {
        assert!(api.content(&format!("/api/v0/blobs/{digest}")).await == *bytes, "content changed");
    }
    // Also what was accepted and never acknowledged ends.
    until("end of every job", || async {
        let running = api.get("/api/v0/jobs?status=RUNNING&limit=1000").await;
        let running = running.body["items"].as_array().unwrap().clone();
        for job in running.iter().filter_map(|job| job["job_id"].as_str()) {
            if !told.jobs.contains_key(job) {
                api.cancel(job).await;
            }
        }
        running.is_empty().then_some(())
    })
    .await;
    let recorded = audited(api).await;
    for job in told.jobs.keys() {
        assert!(recorded.contains(job), "job {job} is not in the books");
    }
    chain(api, "default").await;
}
