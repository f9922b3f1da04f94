//! Jobs that hand arrays to each other by name.

use forge_tests::api::Api;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use reqwest::Method;
use serde_json::{Value, json};

use super::{keep, refused, remove};
use crate::answers::digest;

const NPY: &str = "application/x-npy";

/// A B of named or stored matrices of n x n.
fn product(n: usize, a: Value, b: Value) -> Value {
    let op = json!({"name": "gemm", "version": 1, "profile": "dgemm"});
    changed(insurance(1), &[("/op", op), ("/args", json!({"m": n, "n": n, "k": n, "a": a, "b": b}))])
}

fn kept(contract: Value, target: Value) -> Value {
    changed(contract, &[("/artifacts", json!({"vmem": target}))])
}

fn multiplied(a: &Matrix<f64>, b: &Matrix<f64>) -> Vec<f64> {
    let cell = |row: usize, column: usize| (0..a.columns).map(|k| a.row(row)[k] * b.row(k)[column]).sum();
    (0..a.rows)
        .flat_map(|row| (0..b.columns).map(move |column| (row, column)))
        .map(|(row, column)| cell(row, column))
        .collect()
}

async fn matrix(api: &Api, path: &str) -> Matrix<f64> {
    Matrix::parse(&api.content(path).await)
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let far = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
    assert!(far < 1e-10, "differs by {far}");
}

/// (A B) C, the first product kept by name and read by name; then the second once more, after the name has moved on.
#[tokio::test]
async fn two_jobs_are_chained_and_the_second_repeats() {
    const N: usize = 40;
    let pool = Pool::start(2).await;
    let api = &pool.api;
    let [a, b, c, other] = [1, 2, 3, 4].map(|seed| Matrix::<f64>::random(seed, N, N));
    keep(api, "a", NPY, a.file()).await;
    keep(api, "b", NPY, b.file()).await;
    let first = product(N, json!({"vmem": "a"}), json!({"vmem": "b", "version": 1}));
    let first = api.execute(&kept(first, json!("ab"))).await;
    digest(&first.body);
    let written = first.at("/vmem/written/0").clone();
    assert_eq!((&written["part"], &written["name"], &written["version"]), (&json!("c"), &json!("ab"), &json!(1)));
    assert_eq!((&written["dtype"], &written["shape"]), (&json!("f64"), &json!([N, N])));
    assert_eq!(written["digest"], first.body["hub"]["output"]["c"]["digest"]);
    assert_eq!(
        first.at("/vmem/read/0"),
        &json!({
            "argument": "a", "name": "a", "version": 1, "digest": forge_contract::Digest::of(&a.file()).to_string()
        })
    );
    let ab = matrix(api, written["url"].as_str().unwrap()).await;
    near(&ab.values, &multiplied(&a, &b));
    let about = api.send(api.request(Method::GET, "/api/v0/vmem/ab").header("accept", "application/json")).await;
    assert_eq!((about.at("/job_id"), about.at("/part")), (&json!(first.job()), &json!("c")));

    let stored = json!(api.put_blob(c.file()).await);
    let second = kept(product(N, json!({"vmem": "ab"}), stored.clone()), json!({"c": "abc"}));
    let second = api.execute(&second).await;
    let result = digest(&second.body);
    assert_eq!(second.at("/vmem/read/0/version"), &json!(1));
    near(&matrix(api, "/api/v0/vmem/abc/1").await.values, &multiplied(&ab, &c));
    // What it computed is a function of the content, whatever that was called.
    let by_digest = api.execute(&product(N, written["digest"].clone(), stored.clone())).await;
    refused("an array is no blob", &by_digest, 404, "request.not_found", &["args.a"]);
    let blob = json!(api.put_blob(ab.file()).await);
    assert_eq!(blob, written["digest"]);
    let by_digest = api.execute(&product(N, blob, stored.clone())).await;
    assert_eq!(digest(&by_digest.body), result);
    assert_eq!(by_digest.at("/hub/replay/replay_key"), second.at("/hub/replay/replay_key"));

    // The name moves on, and the version it stood for is deleted: the job repeats all the same.
    assert_eq!(keep(api, "ab", NPY, other.file()).await.at("/version"), &json!(2));
    assert_eq!(remove(api, "/api/v0/vmem/ab/1").await.status, 204);
    assert_eq!(remove(api, &format!("/api/v0/blobs/{}", written["digest"].as_str().unwrap())).await.status, 204);
    let collected = api.send(api.request(Method::POST, "/api/v0/garbage?grace_s=0")).await;
    assert_eq!(collected.status, 200, "{}", collected.text);
    let replayed = api.send(api.request(Method::POST, &format!("/api/v0/jobs/{}/replay", second.job()))).await;
    assert_eq!((digest(&replayed.body), replayed.at("/replay/verdict")), (result.clone(), &json!("equal")));
    assert_eq!(replayed.at("/vmem/written"), &json!([]), "a replay keeps nothing by name");
    assert_eq!(api.get("/api/v0/vmem/abc/versions").await.at("/items").as_array().unwrap().len(), 1);
    // The same contract again reads what the name means now.
    let moved = api.execute(&product(N, json!({"vmem": "ab"}), stored)).await;
    assert_ne!(digest(&moved.body), result);
    assert_eq!(moved.at("/vmem/read/0/version"), &json!(2));

    // The evidence is sound without the hub: the recorded contract names the digest.
    let evidence = api.content(&format!("/api/v0/jobs/{}/evidence", second.job())).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evidence");
    std::fs::write(&path, evidence).unwrap();
    let verified = crate::command::forge(&pool, &["verify", path.to_str().unwrap()]).await;
    assert!(
        verified.status.success(),
        "{}{}",
        crate::command::text(&verified.stdout),
        crate::command::text(&verified.stderr)
    );
    pool.stop().await;
}

/// Eight jobs that end at about the same time keep eight versions, each answer naming its own; a hub that is killed
/// meanwhile keeps what it acknowledged.
#[tokio::test]
async fn every_end_has_a_version_of_its_own() {
    const N: usize = 8;
    let mut pool = Pool::start(2).await;
    let matrices: Vec<Matrix<f64>> = (0..8).map(|seed| Matrix::random(seed, N, N)).collect();
    let one = json!(pool.api.put_blob(matrices[0].file()).await);
    let mut jobs = Vec::new();
    for matrix in &matrices {
        let b = json!(pool.api.put_blob(matrix.file()).await);
        jobs.push(pool.api.submit(&kept(product(N, one.clone(), b), json!("race"))).await);
    }
    let mut versions = Vec::new();
    for (job, matrix) in jobs.iter().zip(&matrices) {
        let state = pool.api.finished(job).await;
        let written = &state["vmem"]["written"][0];
        versions.push(written["version"].as_u64().unwrap());
        let found = self::matrix(&pool.api, written["url"].as_str().unwrap()).await;
        near(&found.values, &multiplied(&matrices[0], matrix));
    }
    pool.kill_hub().await;
    pool.restart_hub().await;
    let listed = pool.api.get("/api/v0/vmem/race/versions").await;
    for (job, version) in jobs.iter().zip(&versions) {
        let item = &listed.body["items"][usize::try_from(version - 1).unwrap()];
        assert_eq!((&item["job_id"], &item["version"]), (&json!(job), &json!(version)));
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=8).collect::<Vec<u64>>());
    pool.stop().await;
}

#[tokio::test]
async fn names_that_mean_nothing_are_refused_with_their_place() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let a = Matrix::<f64>::random(1, 2, 2);
    keep(api, "a", NPY, a.file()).await;
    let stored = json!(api.put_blob(a.file()).await);
    let other = forge_contract::Digest::of(b"other").to_string();
    for (what, a, status, code, says) in [
        ("no array", json!({"vmem": "none"}), 404, "request.not_found", "no array 'none'"),
        ("no version", json!({"vmem": "a", "version": 2}), 404, "request.not_found", "'a' version 2"),
        ("version 0", json!({"vmem": "a", "version": 0}), 422, "request.arguments", "version: expected"),
        ("bad name", json!({"vmem": "../a"}), 422, "request.arguments", "vmem:"),
        ("more", json!({"vmem": "a", "x": 1}), 422, "request.arguments", "expected the digest"),
        ("neither", json!({}), 422, "request.arguments", "expected the digest"),
        ("another digest", json!({"vmem": "a", "digest": other}), 422, "request.conflict", "another digest"),
    ] {
        let answer = api.execute(&product(2, a, stored.clone())).await;
        refused(what, &answer, status, code, &["args.a", says]);
        assert_eq!(answer.at("/pointer"), &json!("/args/a"), "{what}");
    }
    let good = product(2, json!({"vmem": "a"}), stored);
    for (what, target, refusal, pointer, says) in [
        ("no such part", json!({"d": "x"}), (422, "request.conflict"), "/artifacts/vmem/d", "there is no such part"),
        ("bad name", json!("a/b"), (400, "request.schema"), "/artifacts/vmem", "a word"),
        ("no name", json!(7), (400, "request.schema"), "/artifacts/vmem", "text"),
    ] {
        let answer = api.execute(&kept(good.clone(), target)).await;
        refused(what, &answer, refusal.0, refusal.1, &[says]);
        assert_eq!(answer.at("/pointer"), &json!(pointer), "{what}");
    }
    let scalar = api.execute(&kept(insurance(1000), json!("x"))).await;
    refused("no array in it", &scalar, 422, "request.conflict", &["are: none"]);
    let silent = changed(good, &[("/artifacts", json!({"vmem": "x", "persist": false}))]);
    refused("not kept", &api.execute(&silent).await, 422, "request.conflict", &["persist"]);
    let plan = api
        .send(
            api.request(Method::POST, "/api/v0/ops/plan")
                .header("content-type", "application/json")
                .body(product(2, json!({"vmem": "a"}), json!({"vmem": "a", "version": 1})).to_string()),
        )
        .await;
    assert_eq!(plan.status, 200, "{}", plan.text);
    pool.stop().await;
}

/// An idempotency key stands for the contract as it was sent: the name may move on.
#[tokio::test]
async fn the_same_key_gives_the_same_job_after_the_name_moved_on() {
    let pool = Pool::start(1).await;
    let api = &pool.api;
    let [a, b] = [1, 2].map(|seed| Matrix::<f64>::random(seed, 2, 2));
    keep(api, "a", NPY, a.file()).await;
    let contract = product(2, json!({"vmem": "a"}), json!({"vmem": "a"})).to_string();
    let send = async || {
        let request = api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
        api.send(request.header("idempotency-key", "k").body(contract.clone())).await
    };
    let first = send().await;
    digest(&first.body);
    keep(api, "a", NPY, b.file()).await;
    let again = send().await;
    assert_eq!((again.job(), &again.headers["idempotency-replayed"]), (first.job(), &"true".parse().unwrap()));
    pool.stop().await;
}
