//! What a project may use: refused with the limit's name, its value, what was asked, and when to try again.

use std::collections::BTreeSet;

use forge_tests::api::{Answer, Api};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

/// A refusal by a limit.
fn beyond(answer: &Answer, status: u16, name: &str, value: &Value, asked: Option<&Value>) {
    let place = &answer.text;
    assert_eq!((answer.status.as_u16(), answer.at("/code")), (status, &json!("request.quota")), "{place}");
    assert_eq!((answer.at("/limit/name"), answer.at("/limit/value")), (&json!(name), value), "{place}");
    if let Some(asked) = asked {
        assert_eq!(answer.at("/limit/asked"), asked, "{place}");
    }
    assert_eq!(answer.headers.contains_key("retry-after"), status == 429, "{place}");
    assert!(answer.at("/detail").as_str().unwrap().contains(name), "{place}");
}

async fn limit(api: &Api, project: &str, limits: &Value) {
    api.patched(&format!("/api/v0/projects/{project}"), &json!({ "limits": limits })).await;
}

fn later(api: &Api, contract: &Value, key: Option<&str>) -> reqwest::RequestBuilder {
    let request = api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    request.header("prefer", "respond-async").body(contract.to_string())
}

/// So many submissions at the same time.
async fn race(api: &Api, count: usize) -> Vec<Answer> {
    let contract = insurance(1000);
    let sent: Vec<_> = (0..count)
        .map(|_| {
            let (api, request) = (api.clone(), later(api, &contract, None));
            tokio::spawn(async move { api.send(request).await })
        })
        .collect();
    let mut answers = Vec::new();
    for one in sent {
        answers.push(one.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn jobs_at_one_time_are_counted_exactly_however_many_race() {
    let mut pool = Pool::start_with(0, &["--no-agents-ms", "600000"]).await;
    let admin = pool.api.organisation("acme").await;
    limit(&admin, "acme", &json!({ "concurrent_jobs": 0 })).await;
    for refused in race(&admin, 100).await {
        beyond(&refused, 429, "concurrent_jobs", &json!(0), Some(&json!(1)));
    }
    assert_eq!(admin.get("/api/v0/jobs").await.at("/items"), &json!([]), "nothing was begun");

    limit(&admin, "acme", &json!({ "concurrent_jobs": 3 })).await;
    let first = admin.send(later(&admin, &insurance(1000), Some("mine"))).await;
    assert_eq!(first.status, 202, "{}", first.text);
    let answers = race(&admin, 100).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (2, 98));
    refused.iter().for_each(|answer| beyond(answer, 429, "concurrent_jobs", &json!(3), Some(&json!(4))));
    let shown = admin.get("/api/v0/projects/acme").await;
    assert_eq!(shown.at("/usage/concurrent_jobs"), &json!(3), "{}", shown.text);
    // A repeated request is no new job.
    let again = admin.send(later(&admin, &insurance(1000), Some("mine"))).await;
    assert_eq!((again.status.as_u16(), again.job()), (202, first.job()), "{}", again.text);
    let other = admin.send(later(&admin, &insurance(2000), Some("mine"))).await;
    assert_eq!(other.at("/code"), "request.idempotency_mismatch", "{}", other.text);
    // Another project is not held up by it.
    assert_eq!(pool.api.send(later(&pool.api, &insurance(1000), None)).await.status, 202);

    // Someone computes: each job that ends makes room for another, and never for two.
    pool.join().await;
    for job in taken.iter().map(|answer| answer.job()).chain([first.job()]) {
        digest(&admin.finished(&job).await);
    }
    let more = admin.execute(&insurance(1000)).await;
    digest(&more.body);
    pool.stop().await;
}

#[tokio::test]
async fn what_one_job_may_is_said_before_it_begins() {
    let pool = Pool::start(1).await;
    let admin = pool.api.organisation("acme").await;
    let quote = admin.json(Method::POST, "/api/v0/ops/plan", &insurance(100_000)).await;
    let fuel = quote.at("/quote/fuel").as_u64().unwrap();
    let keyed = async |contract: &Value| {
        let request = admin.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        admin.send(request.header("idempotency-key", "before").body(contract.to_string())).await
    };
    let before = keyed(&insurance(100_000)).await;
    digest(&before.body);
    for (limits, name, value, asked) in [
        (json!({ "iterations_per_job": 99_999 }), "iterations_per_job", json!(99_999), json!(100_000)),
        (json!({ "iterations_per_job": null, "fuel_per_job": fuel - 1 }), "fuel_per_job", json!(fuel - 1), json!(fuel)),
        (json!({ "fuel_per_job": null, "verify_min": "quorum" }), "verify_min", json!("quorum"), json!("spotcheck")),
    ] {
        limit(&admin, "acme", &limits).await;
        let contract = changed(insurance(100_000), &[("/policy/verify", json!("spotcheck"))]);
        let refused = admin.execute(&contract).await;
        beyond(&refused, 422, name, &value, Some(&asked));
        let kept = admin.get(&format!("/api/v0/jobs/{}", refused.job())).await;
        assert_eq!((kept.at("/status"), kept.at("/error/code")), (&json!("FAILED"), &json!("request.quota")));
        let planned = admin.json(Method::POST, "/api/v0/ops/plan", &contract).await;
        beyond(&planned, 422, name, &value, Some(&asked));
        let replayed = admin
            .json(
                Method::POST,
                &format!("/api/v0/jobs/{}/replay", before.job()),
                &json!({ "policy": { "verify": "spotcheck" } }),
            )
            .await;
        beyond(&replayed, 422, name, &value, Some(&asked));
        // What was accepted before is answered with its job.
        let again = keyed(&insurance(100_000)).await;
        assert_eq!(again.job(), before.job(), "{}", again.text);
    }
    let strict = changed(insurance(1000), &[("/policy/verify", json!("full"))]);
    assert_eq!(admin.json(Method::POST, "/api/v0/ops/plan", &strict).await.status, 200, "stricter is within");
    pool.stop().await;
}

#[tokio::test]
async fn requests_and_bytes_are_bounded_and_the_operator_sets_the_ceiling() {
    let pool = Pool::start(0).await;
    let admin = pool.api.organisation("acme").await;
    let ceilings = json!({ "ceilings": { "requests_per_second": 1000, "storage_bytes": 100 } });
    pool.api.patched("/api/v0/organisations/acme", &ceilings).await;
    let own = admin.json(Method::PATCH, "/api/v0/organisations/acme", &ceilings).await;
    assert_eq!((own.status.as_u16(), own.at("/pointer")), (403, &json!("/ceilings")), "{}", own.text);
    let above = json!({ "limits": { "storage_bytes": 101 } });
    let above = admin.json(Method::PATCH, "/api/v0/projects/acme", &above).await;
    assert_eq!((above.status.as_u16(), above.at("/pointer")), (403, &json!("/limits/storage_bytes")), "{}", above.text);

    let put = async |bytes: Vec<u8>| {
        let digest = forge_contract::Digest::of(&bytes);
        let path = format!("/api/v0/blobs/{digest}?bytes={}", bytes.len());
        admin.send(admin.request(Method::PUT, &path).body(bytes)).await
    };
    assert_eq!(put(vec![1; 60]).await.status, 201);
    beyond(&put(vec![2; 41]).await, 422, "storage_bytes", &json!(100), Some(&json!(101)));
    assert_eq!(put(vec![1; 60]).await.status, 200, "what is there takes no more room");
    assert_eq!(put(vec![2; 40]).await.status, 201);
    // A signed URL has no way around it.
    let bytes = vec![3; 5];
    let digest = forge_contract::Digest::of(&bytes);
    let wish = json!({ "method": "PUT", "seconds": 60, "bytes": 5 });
    let url = admin.json(Method::POST, &format!("/api/v0/blobs/{digest}/urls"), &wish).await;
    let url = url.at("/url").as_str().unwrap().to_owned();
    let signed = admin.send(forge_tests::api::http().put(url).body(bytes)).await;
    beyond(&signed, 422, "storage_bytes", &json!(100), Some(&json!(105)));

    // Two at once and then one a second: of many that follow each other, some come too soon.
    limit(&admin, "acme", &json!({ "requests_per_second": 1, "requests_burst": 2 })).await;
    let (mut statuses, mut refused) = (BTreeSet::new(), None);
    for _ in 0..40 {
        let answer = admin.get("/api/v0/jobs").await;
        statuses.insert(answer.status.as_u16());
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    assert_eq!(statuses, BTreeSet::from([200, 429]));
    let refused = refused.unwrap();
    beyond(&refused, 429, "requests_per_second", &json!(1), None);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.at("/limit/resets_at_ms").is_u64(), "{}", refused.text);
    until("the rate to allow more", || async { (admin.get("/api/v0/jobs").await.status == 200).then_some(()) }).await;
    // Others are not slowed down by it, and a lifted limit is lifted at once.
    for _ in 0..20 {
        assert_eq!(pool.api.get("/api/v0/jobs").await.status, 200);
    }
    limit(&pool.api, "acme", &json!({ "requests_per_second": null, "requests_burst": null })).await;
    for _ in 0..20 {
        assert_eq!(admin.get("/api/v0/jobs").await.status, 200);
    }
    pool.stop().await;
}
