//! Private pools with real agents: a project's jobs stay where they may run, and a reserved agent is nobody else's.

use std::collections::BTreeSet;

use forge_tests::api::Api;
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

/// Who ran anything of a job, for whatever reason.
async fn ran(api: &Api, job: &str) -> BTreeSet<String> {
    let listed = api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await;
    let items = listed.at("/items").as_array().cloned().unwrap_or_default();
    assert!(!items.is_empty(), "{}", listed.text);
    items.iter().map(|item| item["agent_id"].as_str().unwrap().to_owned()).collect()
}

async fn agents(api: &Api) -> BTreeSet<String> {
    let listed = api.get("/api/v0/agents").await;
    let items = listed.at("/items").as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["agent_id"].as_str().unwrap().to_owned()).collect()
}

fn contract(verify: &str, seed: &str) -> Value {
    let shards = ("/policy/shards", json!(16));
    changed(insurance(2_000_000), &[("/policy/verify", json!(verify)), ("/seed/value", json!(seed)), shards])
}

#[tokio::test]
async fn jobs_stay_in_their_region_and_on_what_is_reserved() {
    let mut pool = Pool::start(1).await;
    let (operator, hub) = (pool.api.clone(), pool.quic());
    let before = agents(&operator).await;
    for _ in 0..2 {
        pool.join_at(&hub, &["--region", "eu"]).await;
    }
    let eu: BTreeSet<String> = agents(&operator).await.difference(&before).cloned().collect();
    assert_eq!(eu.len(), 2);
    let admin = operator.organisation("acme").await;
    admin.patched("/api/v0/projects/acme", &json!({ "pool": { "region": "eu" } })).await;
    let planned = admin.json(Method::POST, "/api/v0/ops/plan", &contract("quorum", "plan")).await;
    assert_eq!(planned.at("/plan/terms/requires/labels"), &json!(["region=eu"]), "{}", planned.text);
    let mut results = BTreeSet::new();
    for verify in ["none", "spotcheck", "quorum"] {
        let done = admin.execute(&contract(verify, "same")).await;
        results.insert(digest(&done.body));
        let where_it_ran = ran(&admin, &done.job()).await;
        assert!(where_it_ran.is_subset(&eu), "{verify}: {where_it_ran:?} is not within {eu:?}");
    }
    assert_eq!(results.len(), 1, "where it runs is no part of the result");
    let elsewhere = changed(contract("none", "us"), &[("/policy/region", json!("us"))]);
    let refused = admin.execute(&elsewhere).await;
    assert_eq!((refused.status.as_u16(), refused.at("/code")), (422, &json!("request.conflict")), "{}", refused.text);
    assert_eq!(refused.at("/pointer"), "/policy/region");

    // Nothing is reserved yet: an exclusive project has nowhere to run, whoever is there.
    admin.patched("/api/v0/projects/acme", &json!({ "pool": { "exclusive": true } })).await;
    let one = eu.first().unwrap().clone();
    let reserve = format!("/api/v0/agents/{one}/reservation");
    let own = admin.json(Method::PUT, &reserve, &json!({ "reserved_for": "acme" })).await;
    assert_eq!(own.status, 403, "it is not this provider's: {}", own.text);
    let nobody = operator.json(Method::PUT, &reserve, &json!({ "reserved_for": "no-such" })).await;
    assert_eq!((nobody.status.as_u16(), nobody.at("/pointer")), (404, &json!("/reserved_for")), "{}", nobody.text);
    let job = admin.submit(&contract("none", "exclusive")).await;
    let reserved = operator.json(Method::PUT, &reserve, &json!({ "reserved_for": "acme" })).await;
    assert_eq!(reserved.at("/reserved_for"), "acme", "{}", reserved.text);
    digest(&admin.finished(&job).await);
    assert_eq!(ran(&admin, &job).await, BTreeSet::from([one.clone()]));
    // And what is reserved is nobody else's.
    let other = operator.execute(&contract("none", "other")).await;
    digest(&other.body);
    assert!(!ran(&operator, &other.job()).await.contains(&one));
    // A replay is bound like the job, by what is said now.
    let replay = admin.json(Method::POST, &format!("/api/v0/jobs/{job}/replay"), &json!({})).await;
    assert_eq!(replay.at("/replay/verdict"), "equal", "{}", replay.text);
    assert_eq!(ran(&admin, &replay.job()).await, BTreeSet::from([one]));
    pool.stop().await;
}

#[tokio::test]
async fn a_provider_enrols_sees_and_reserves_its_own() {
    let mut pool = Pool::start(1).await;
    let admin = pool.api.organisation("acme").await;
    let provider = admin.with_key(&admin.new_key(&json!({ "scopes": ["provider"] })).await.0);
    assert_eq!(provider.get("/api/v0/jobs").await.status, 403, "it sees agents and nothing else");
    for (wish, pointer) in [(json!({ "verifier": true }), "/verifier"), (json!({ "provider": "p" }), "/provider")] {
        let refused = provider.json(Method::POST, "/api/v0/agents/tokens", &wish).await;
        assert_eq!((refused.status.as_u16(), refused.at("/pointer")), (403, &json!(pointer)), "{}", refused.text);
    }
    let token = provider.token(&json!({ "reserved_for": "acme" })).await;
    pool.join_with(&token).await;
    // Whether it is connected is counted a moment after it has joined.
    let listed = until("the agent to be counted", || async {
        let listed = provider.get("/api/v0/agents").await;
        (listed.at("/connected") == &json!(1)).then_some(listed)
    })
    .await;
    assert_eq!(listed.at("/items").as_array().unwrap().len(), 1, "{}", listed.text);
    let mine = &listed.body["items"][0];
    assert_eq!(
        (&mine["provider"], &mine["reserved_for"], &mine["project"]),
        (&json!("acme"), &json!("acme"), &json!("acme"))
    );
    assert_eq!(listed.at("/connected"), &json!(1));
    let id = mine["agent_id"].as_str().unwrap();
    let path = format!("/api/v0/agents/{id}/reservation");
    let foreign = provider.json(Method::PUT, &path, &json!({ "reserved_for": "default" })).await;
    assert_eq!(foreign.status, 404, "{}", foreign.text);
    let done = pool.api.execute(&contract("none", "not theirs")).await;
    digest(&done.body);
    assert!(!ran(&pool.api, &done.job()).await.contains(id));
    let freed = provider.json(Method::PUT, &path, &json!({ "reserved_for": null })).await;
    assert_eq!(freed.at("/reserved_for"), &Value::Null, "{}", freed.text);
    let missing = provider.json(Method::PUT, &path, &json!({})).await;
    assert_eq!(missing.at("/code"), "request.schema", "leaving it out is no answer: {}", missing.text);
    pool.stop().await;
}
