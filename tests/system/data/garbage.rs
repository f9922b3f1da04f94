//! Files that nothing names, on a running hub.

use std::path::Path;

use forge_contract::Digest;
use forge_tests::api::Api;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

use super::{keep, refused, remove};
use crate::answers::digest;

async fn collect(api: &Api) -> Value {
    let answer = api.send(api.request(Method::POST, "/api/v0/garbage?grace_s=0")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

fn is_there(pool: &Pool, digest: &str) -> bool {
    let path = pool.dir().join("hub/blobs").join(&digest[..2]).join(digest);
    Path::exists(&path)
}

#[tokio::test]
async fn content_goes_once_nothing_names_it() {
    let pool = Pool::start(1).await;
    let api = &pool.api;
    collect(api).await;
    let [free, read, named] = [1, 2, 3].map(|seed| Matrix::<f64>::random(seed, 40, 40).file());
    let mut digests = Vec::new();
    for content in [&free, &read, &named] {
        digests.push(api.put_blob(content.clone()).await);
    }
    keep(api, "named", "application/x-npy", named).await;
    let op = json!({"name": "gemm", "version": 1, "profile": "dgemm"});
    let args = json!({"m": 40, "n": 40, "k": 40, "a": digests[1], "b": digests[1]});
    let answer = api
        .execute(&changed(insurance(1), &[("/op", op), ("/args", args), ("/artifacts", json!({"persist": false}))]))
        .await;
    digest(&answer.body);
    assert_eq!(collect(api).await["removed"], 0);
    for digest in &digests {
        assert_eq!(remove(api, &format!("/api/v0/blobs/{digest}")).await.status, 204);
        refused("gone", &api.get(&format!("/api/v0/blobs/{digest}")).await, 404, "request.not_found", &[]);
        refused("gone", &remove(api, &format!("/api/v0/blobs/{digest}")).await, 404, "request.not_found", &[]);
    }
    let found = collect(api).await;
    assert_eq!((&found["removed"], &found["bytes"]), (&json!(1), &json!(free.len())));
    let there: Vec<bool> = digests.iter().map(|digest| is_there(&pool, digest)).collect();
    assert_eq!(there, [false, true, true], "a job and an array keep theirs");
    // It can come again.
    assert_eq!(api.put_blob(free.clone()).await, digests[0]);
    assert_eq!(Digest::of(&api.content(&format!("/api/v0/blobs/{}", digests[0])).await), Digest::of(&free));
    let replayed = api.send(api.request(Method::POST, &format!("/api/v0/jobs/{}/replay", answer.job()))).await;
    assert_eq!(replayed.at("/replay/verdict"), &json!("equal"), "{}", replayed.text);
    assert_eq!(remove(api, "/api/v0/vmem/named/1").await.status, 204);
    assert_eq!(collect(api).await["removed"], 1);
    assert!(!is_there(&pool, &digests[2]) && is_there(&pool, &digests[1]));
    pool.stop().await;
}

/// What nothing names goes by itself, too, once it was so for long enough.
#[tokio::test]
async fn the_hub_collects_by_itself() {
    let pool = Pool::start_with(0, &["--collect-every-ms", "20", "--collect-grace-ms", "1"]).await;
    let digest = pool.api.put_blob(vec![7; 1000]).await;
    assert!(is_there(&pool, &digest));
    assert_eq!(remove(&pool.api, &format!("/api/v0/blobs/{digest}")).await.status, 204);
    forge_tests::until("removal of the file", || async { (!is_there(&pool, &digest)).then_some(()) }).await;
    pool.stop().await;
}
