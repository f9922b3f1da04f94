//! Jobs that end early, with real processes: where they end depends on the contract alone.

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::digest;

const CAP: u64 = 8_000_000;

fn contract(stop: &Value, shards: u64) -> Value {
    let changes = [("/args/stop", stop.clone()), ("/policy/shards", json!(shards)), ("/policy/max_agents", json!(0))];
    changed(insurance(CAP), &changes)
}

async fn run(pool: &Pool, stop: &Value, shards: u64) -> Value {
    let answer = pool.api.execute(&contract(stop, shards)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test]
async fn any_pool_ends_where_every_other_does() {
    // The interval of the quickstart's mean is 0.51 % wide to each side after a million years.
    let stop = json!({"half_width": 0.0045, "confidence": 0.95});
    let mut found: Option<(Value, Value, String)> = None;
    for agents in [1, 3] {
        let pool = Pool::start(agents).await;
        for shards in [10, 30, 123] {
            let body = run(&pool, &stop, shards).await;
            let end = body["hub"]["convergence"].clone();
            assert_eq!(end["reason"], "half_width", "{end}");
            let (unit, items) = (end["stopped_at"]["unit"].as_u64().unwrap(), end["stopped_at"]["items"].as_u64());
            assert!((17..40).contains(&unit), "{end}");
            assert_eq!(items, Some(unit * 65_536));
            assert!(end["measured"]["relative"].as_f64().unwrap() <= 0.0045);
            assert_eq!(body["hub"]["output"]["loss"]["n"], end["stopped_at"]["items"]);
            let metrics = &body["hub"]["metrics"];
            assert_eq!((metrics["units"].as_u64(), &metrics["iterations"]), (Some(unit), &end["stopped_at"]["items"]));
            assert!(metrics["shards"].as_u64() < metrics["shards_total"].as_u64());
            only_the_prefix_is_evidence(&pool, &body, unit).await;
            let here = (end, body["hub"]["output"].clone(), digest(&body));
            assert_eq!(found.get_or_insert_with(|| here.clone()), &here, "{agents} agents, {shards} shards");
        }
        pool.stop().await;
    }
}

/// Units, executions and the bill tell of the prefix; what ran beyond it is there, said to be superseded.
async fn only_the_prefix_is_evidence(pool: &Pool, body: &Value, unit: u64) {
    let job = body["job_id"].as_str().unwrap();
    let shards = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/shards_json")).await.body;
    let units: Vec<&Value> =
        shards.as_array().unwrap().iter().flat_map(|shard| shard["units"].as_array().unwrap()).collect();
    assert_eq!(units.len() as u64, unit);
    let fuel: u64 = units.iter().map(|unit| unit["fuel"].as_u64().unwrap()).sum();
    assert_eq!(body["hub"]["metrics"]["fuel"].as_u64(), Some(fuel));
    let micro = body["billing"]["credits_micro"].as_u64().unwrap();
    assert_eq!(micro, (fuel * 1_000_000).div_ceil(3_000_000_000));
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/executions_json")).await.body;
    let stored = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await.body;
    // A late answer to a lease that was taken back may come after the evidence was written.
    let settled = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().filter(|execution| execution["status"] != "LATE").cloned().collect()
    };
    assert_eq!(settled(&stored["items"]), settled(&executions), "what is read is what is evidence");
    for execution in executions.as_array().unwrap() {
        let beyond = execution["first_unit"].as_u64().unwrap() >= unit;
        let status = execution["status"].as_str().unwrap();
        let expected = if beyond { &["SUPERSEDED", "REVOKED", "LATE"][..] } else { &["REPORTED", "REVOKED", "LATE"] };
        assert!(expected.contains(&status), "{execution}");
    }
    let artifact = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts/convergence_json")).await.body;
    assert_eq!(artifact["stopped_at"], body["hub"]["convergence"]["stopped_at"]);
}

#[tokio::test]
async fn every_way_to_end_is_named() {
    let pool = Pool::start(2).await;
    let plain = run(&pool, &json!({"budget": 1_000_000}), 16).await;
    let end = &plain["hub"]["convergence"];
    assert_eq!((end["reason"].as_str(), &end["stopped_at"]["items"]), (Some("budget"), &json!(1_000_000)));
    // The quickstart's bits: a budget is a count like any other.
    let quickstart = pool.api.execute(&insurance(1_000_000)).await.body;
    assert_eq!(plain["hub"]["output"], quickstart["hub"]["output"]);
    assert_eq!(digest(&plain), digest(&quickstart));
    assert!(quickstart["hub"].get("convergence").is_none());
    let changes = [("/args/stop", json!({"half_width": 1e-6})), ("/args/iterations", json!(1_500_000))];
    let never = pool.api.execute(&changed(insurance(1), &changes)).await.body;
    let end = &never["hub"]["convergence"];
    assert_eq!((end["reason"].as_str(), &end["stopped_at"]["items"]), (Some("exhausted"), &json!(1_500_000)));
    assert_eq!(end["measured"]["n"], 1_500_000);
    let variance = run(&pool, &json!({"variance_change": 0.05}), 40).await;
    assert_eq!(variance["hub"]["convergence"]["reason"], "variance", "{}", variance["hub"]["convergence"]);
    // No claim, no catastrophe: the mean is zero, and nothing is a share of it.
    let changes = [
        ("/args/stop", json!({"half_width": 0.5})),
        ("/args/iterations", json!(1_500_000)),
        ("/args/claim_freq", json!(0)),
        ("/args/cat_prob", json!(0)),
    ];
    let zero = pool.api.execute(&changed(insurance(1), &changes)).await.body;
    let end = &zero["hub"]["convergence"];
    assert_eq!((end["reason"].as_str(), end["measured"].get("relative")), (Some("exhausted"), None));
    pool.stop().await;
}

#[tokio::test]
async fn a_restarted_hub_ends_where_it_would_have() {
    let stop = json!({"half_width": 0.003});
    let mut pool = Pool::start(2).await;
    let whole = run(&pool, &stop, 123).await;
    for moment in [2, 9, 17, 21] {
        let job = pool.api.submit(&contract(&stop, 123)).await;
        let mut events = pool.api.events(&job).await;
        while let Some(event) = events.next().await {
            if event.data["shards_done"].as_u64().unwrap_or(0) >= moment {
                break;
            }
        }
        pool.kill_hub().await;
        pool.restart_hub().await;
        let state = forge_tests::until("end of the job", || async {
            let answer = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
            forge_tests::api::is_final(&answer.body).then_some(answer.body)
        })
        .await;
        assert_eq!(state["hub"]["convergence"], whole["hub"]["convergence"], "killed after {moment} shards");
        assert_eq!(digest(&state), digest(&whole));
    }
    pool.stop().await;
}

#[tokio::test]
async fn progress_shows_the_target_and_mistakes_name_their_place() {
    let pool = Pool::start(1).await;
    let job = pool.api.submit(&contract(&json!({"half_width": 0.0045, "confidence": 0.99}), 123)).await;
    let mut events = pool.api.events(&job).await;
    let mut seen = 0;
    while let Some(event) = events.next().await {
        let target = &event.data["estimate"]["target"];
        if target.is_object() {
            seen += 1;
            assert_eq!((&target["confidence"], &target["half_width"]), (&json!(0.99), &json!(0.0045)));
            assert!(target["relative"].as_f64().unwrap() > 0.0 && target["checkpoint"].as_u64().unwrap() >= 16);
        }
    }
    assert!(seen > 0, "no progress showed the target");
    for (stop, pointer) in [
        (json!({}), "/args/stop"),
        (json!({"half_width": 2}), "/args/stop/half_width"),
        (json!({"half_width": 0.1, "confidence": 0.96}), "/args/stop/confidence"),
        (json!({"halfwidth": 0.1}), "/args/stop/halfwidth"),
        (json!(0.1), "/args/stop"),
    ] {
        let answer = pool.api.execute(&contract(&stop, 4)).await;
        assert_eq!((answer.status.as_u16(), answer.body["pointer"].as_str()), (422, Some(pointer)), "{}", answer.text);
    }
    pool.stop().await;
}
