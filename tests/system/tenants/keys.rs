//! Keys: shown once, found by both headers, replaced, expired, revoked at once, also while something waits with them.

use std::sync::Arc;

use forge_tests::api::{Answer, Api};
use forge_tests::contract::insurance;
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.at("/code")), (status, &json!(code)), "{}", answer.text);
}

async fn revoke(api: &Api, id: &str) -> Answer {
    api.send(api.request(Method::DELETE, &format!("/api/v0/keys/{id}"))).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_replaced_without_a_gap() {
    let pool = Pool::start(0).await;
    let (text, id) = pool.api.new_key(&json!({ "name": "nightly", "scopes": ["compute", "provider"] })).await;
    assert!(text.starts_with("fpk_"));
    let shown = pool.api.get(&format!("/api/v0/keys/{id}")).await;
    assert_eq!((shown.at("/name"), shown.at("/scopes")), (&json!("nightly"), &json!(["compute", "provider"])));
    assert!(text.starts_with(shown.at("/hint").as_str().unwrap()) && !shown.text.contains(&text), "{}", shown.text);
    assert!(!pool.api.get("/api/v0/keys").await.text.contains(&text));
    let other = pool.api.with_key("");
    let by_header = other.request(Method::GET, "/api/v0/keys/current").header("x-forge-api-key", &text);
    // A Bearer without a key is no key, whatever else is sent.
    refused(&other.send(by_header).await, 401, "request.unauthenticated");
    let by_header = forge_tests::api::http().get(format!("{}/api/v0/keys/current", pool.api.url));
    let who = other.send(by_header.header("x-forge-api-key", &text)).await;
    assert_eq!(
        (who.at("/key"), who.at("/project"), who.at("/operator")),
        (&json!(id), &json!("default"), &json!(false))
    );
    until("the note of its use", || async {
        pool.api.get(&format!("/api/v0/keys/{id}")).await.at("/last_used_at_ms").is_u64().then_some(())
    })
    .await;

    let rotated = pool.api.made(&format!("/api/v0/keys/{id}/rotate"), &json!({ "grace_seconds": 3600 })).await;
    let (new, new_id) = (rotated.at("/key").as_str().unwrap(), rotated.at("/id").as_str().unwrap());
    assert_eq!(rotated.at("/scopes"), shown.at("/scopes"));
    for key in [text.as_str(), new] {
        assert_eq!(pool.api.with_key(key).get("/api/v0/jobs").await.status, 200, "both work during the grace");
    }
    pool.api.made(&format!("/api/v0/keys/{new_id}/rotate"), &json!({})).await;
    refused(&pool.api.with_key(new).get("/api/v0/jobs").await, 401, "request.unauthenticated");
    refused(&revoke(&pool.api, new_id).await, 409, "request.state");
    pool.stop().await;
}

#[tokio::test]
async fn a_key_with_an_end_ends() {
    let pool = Pool::start(0).await;
    let (text, id) = pool.api.new_key(&json!({ "scopes": ["read"], "seconds": 1 })).await;
    let short = pool.api.with_key(&text);
    until("the end of the key", || async { (short.get("/api/v0/jobs").await.status == 401).then_some(()) }).await;
    let shown = pool.api.get(&format!("/api/v0/keys/{id}")).await;
    assert!(shown.at("/expires_at_ms").is_u64() && shown.at("/revoked_at_ms").is_null(), "{}", shown.text);
    for wrong in [json!({ "scopes": [] }), json!({ "scopes": ["root"] }), json!({ "scopes": ["read"], "seconds": 0 })] {
        refused(&pool.api.json(Method::POST, "/api/v0/keys", &wrong).await, 400, "request.schema");
    }
    pool.stop().await;
}

/// The one job of the project, once it is there.
async fn waiting(api: &Api) -> String {
    until("the job", || async {
        let listed = api.get("/api/v0/jobs?status=RUNNING").await;
        listed.at("/items/0/job_id").as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_key_revoked_in_the_middle_of_a_job_ends_what_waits_and_the_job_goes_on() {
    let mut pool = Pool::start_with(0, &["--no-agents-ms", "600000"]).await;
    let operator = Arc::new(pool.api.clone());
    let (text, id) = operator.new_key(&json!({ "scopes": ["compute"] })).await;
    let client = operator.with_key(&text);
    let contract = insurance(1_000_000);
    // Nobody is there to compute: all three wait.
    let (by_answer, sent) = (client.clone(), contract.clone());
    let answer = tokio::spawn(async move { by_answer.execute(&sent).await });
    let job = waiting(&operator).await;
    let mut events = client.events(&job).await;
    events.find("progress", |event| event.name == "progress").await;
    let later = client.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
    let later = later.header("prefer", "respond-async, wait=300").header("idempotency-key", "poll");
    let (polling, later) = (client.clone(), later.body(contract.to_string()));
    let poll = tokio::spawn(async move { polling.send(later).await });
    until("the second job", || async {
        let listed = operator.get("/api/v0/jobs?status=RUNNING").await;
        (listed.at("/items").as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;

    assert_eq!(revoke(&operator, &id).await.status, 200);
    // From this moment on, and not a little later.
    refused(&client.get("/api/v0/jobs").await, 401, "request.unauthenticated");
    let answer = answer.await.unwrap();
    refused(&answer, 401, "request.unauthenticated");
    assert_eq!(answer.at("/job_id"), &json!(job), "whoever reads the log finds the job");
    refused(&poll.await.unwrap(), 401, "request.unauthenticated");
    let last = events.find("the end", |event| event.name == "error").await;
    assert_eq!((&last.data["code"], &last.data["status"]), (&json!("request.unauthenticated"), &json!(401)));
    assert!(events.next().await.is_none(), "nothing comes after it");

    // The job is nobody's key's: it is the project's.
    pool.join().await;
    digest(&operator.finished(&job).await);
    let ended = operator.get("/api/v0/jobs?status=COMPLETED").await;
    assert!(ended.text.contains(&job), "{}", ended.text);
    pool.stop().await;
}

#[tokio::test]
async fn members_narrow_their_keys_and_leave_with_them() {
    let pool = Pool::start(0).await;
    let admin = pool.api.organisation("acme").await;
    let members = "/api/v0/organisations/acme/members";
    let add = async |name: &str, role: &str| {
        let made = admin.made(members, &json!({ "name": name, "role": role })).await;
        made.at("/id").as_str().unwrap().to_owned()
    };
    let (ada, bob) = (add("ada", "owner").await, add("bob", "member").await);
    let taken = admin.json(Method::POST, members, &json!({ "name": "bob", "role": "viewer" })).await;
    refused(&taken, 409, "request.taken");
    let wish = |member: &str| json!({ "scopes": ["compute", "admin"], "member": member });
    let bobs = admin.with_key(&admin.new_key(&wish(&bob)).await.0);
    let who = bobs.get("/api/v0/keys/current").await;
    assert_eq!((who.at("/member"), who.at("/scopes")), (&json!(bob), &json!(["compute"])), "{}", who.text);
    refused(&bobs.get("/api/v0/keys").await, 403, "request.forbidden");
    // A role counts at once.
    admin.patched(&format!("{members}/{bob}"), &json!({ "role": "admin" })).await;
    assert_eq!(bobs.get("/api/v0/keys").await.status, 200);
    let crowned = bobs.json(Method::PATCH, &format!("{members}/{bob}"), &json!({ "role": "owner" })).await;
    refused(&crowned, 403, "request.forbidden");
    let last = admin.json(Method::PATCH, &format!("{members}/{ada}"), &json!({ "role": "member" })).await;
    refused(&last, 409, "request.state");
    let gone = admin.send(admin.request(Method::DELETE, &format!("{members}/{bob}"))).await;
    assert_eq!(gone.status, 204, "{}", gone.text);
    refused(&bobs.get("/api/v0/jobs").await, 401, "request.unauthenticated");
    refused(&admin.json(Method::POST, "/api/v0/keys", &wish(&bob)).await, 404, "request.not_found");
    let listed = admin.get(members).await;
    let names: Vec<&Value> = listed.at("/items").as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["ada"]);
    pool.stop().await;
}
