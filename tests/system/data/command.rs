//! The command line over what projects keep.

use forge_tests::npy::Matrix;
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::command::{forge, text};

async fn said(pool: &Pool, args: &[&str]) -> String {
    let output = forge(pool, args).await;
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn json_of(pool: &Pool, args: &[&str]) -> Value {
    serde_json::from_str(&said(pool, args).await).unwrap()
}

#[tokio::test]
async fn values_are_kept_by_hand() {
    let pool = Pool::start(0).await;
    let made = json_of(&pool, &["kv", "put", "app", "state/step", "7", "--new", "--ttl", "600", "--json"]).await;
    let etag = made["etag"].as_str().unwrap();
    assert_eq!(said(&pool, &["kv", "get", "app", "state/step"]).await, "7");
    let about = json_of(&pool, &["kv", "get", "app", "state/step", "--json"]).await;
    assert_eq!(
        (&about["etag"], &about["text"], &about["expires_at"]),
        (&json!(etag), &json!("7"), &made["expires_at"])
    );
    assert!(said(&pool, &["kv", "put", "app", "state/step", "8", "--if-match", etag]).await.contains("ETag"));
    let stale = forge(&pool, &["kv", "put", "app", "state/step", "9", "--if-match", etag]).await;
    assert_eq!(stale.status.code(), Some(3), "{}", text(&stale.stderr));
    assert!(text(&stale.stderr).contains("request.precondition"), "{}", text(&stale.stderr));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, [0, 255, 1]).unwrap();
    said(&pool, &["kv", "put", "app", "raw", "--file", file.to_str().unwrap(), "--content-type", "x/y"]).await;
    let out = folder.path().join("out");
    said(&pool, &["kv", "get", "app", "raw", "-o", out.to_str().unwrap()]).await;
    assert_eq!(std::fs::read(&out).unwrap(), [0, 255, 1]);
    let listed = said(&pool, &["kv", "list", "app"]).await;
    assert!(listed.contains("state/step") && listed.contains("x/y"), "{listed}");
    assert!(!said(&pool, &["kv", "list", "app", "--prefix", "state/"]).await.contains("raw"));
    assert!(said(&pool, &["kv", "list"]).await.contains("app"));
    said(&pool, &["kv", "delete", "app", "raw"]).await;
    assert_eq!(forge(&pool, &["kv", "get", "app", "raw"]).await.status.code(), Some(3));
    let bad = forge(&pool, &["kv", "put", "app", "a/../b", "x"]).await;
    assert_eq!(bad.status.code(), Some(2), "{}", text(&bad.stderr));
    pool.stop().await;
}

#[tokio::test]
async fn arrays_are_kept_fetched_and_named_by_hand() {
    let pool = Pool::start(1).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let matrix = Matrix::<f64>::random(5, 6, 6);
    std::fs::write(path("a.npy"), matrix.file()).unwrap();
    assert_eq!(said(&pool, &["vmem", "put", "a", &path("a.npy")]).await, "a@1\n");
    said(&pool, &["vmem", "get", "a@1", "-o", &path("back.npy")]).await;
    assert_eq!(std::fs::read(path("back.npy")).unwrap(), matrix.file());
    let part = json_of(&pool, &["vmem", "get", "a", "-o", &path("row.npy"), "--slice", "-1", "--json"]).await;
    assert_eq!((&part["shape"], &part["version"], &part["dtype"]), (&json!([6]), &json!(1), &json!("f64")));
    for (format, name) in [("arrow", "a.arrows"), ("arrow-file", "a.arrow")] {
        said(&pool, &["vmem", "get", "a", "-o", &path(name), "--format", format]).await;
        said(&pool, &["vmem", "put", "a", &path(name)]).await;
    }
    let shown = json_of(&pool, &["vmem", "show", "a", "--json"]).await;
    let digests: Vec<&Value> = shown["items"].as_array().unwrap().iter().map(|item| &item["digest"]).collect();
    assert!(digests.len() == 3 && digests.iter().all(|digest| *digest == digests[0]), "{shown}");
    let contract = json!({
        "ctx": {}, "op": {"name": "gemm", "version": 1, "profile": "dgemm"}, "seed": {"mode": "derived"}, "policy": {},
        "args": {"m": 6, "n": 6, "k": 6}, "artifacts": {"vmem": "aa"},
    });
    std::fs::write(path("contract.json"), contract.to_string()).unwrap();
    let inputs = ["--input", "a=vmem:a", "--input", "b=vmem:a@2", "--json"];
    let run = json_of(&pool, &[&["run", path("contract.json").as_str()][..], &inputs].concat()).await;
    assert_eq!(run["vmem"]["written"][0]["name"], "aa", "{run}");
    assert_eq!((&run["vmem"]["read"][0]["version"], &run["vmem"]["read"][1]["version"]), (&json!(3), &json!(2)));
    let listed = said(&pool, &["vmem", "list"]).await;
    assert!(listed.contains("a@3") && listed.contains("aa@1") && listed.contains("6 x 6"), "{listed}");
    said(&pool, &["vmem", "delete", "a@3"]).await;
    assert!(said(&pool, &["vmem", "show", "a"]).await.contains("(deleted)"));
    assert_eq!(json_of(&pool, &["vmem", "show", "a@2", "--json"]).await["version"], 2);
    let bare = forge(&pool, &["vmem", "delete", "a"]).await;
    assert!(!bare.status.success() && text(&bare.stderr).contains("NAME@VERSION"));
    let digest = said(&pool, &["blob", "put", &path("contract.json")]).await[..64].to_owned();
    said(&pool, &["blob", "delete", &digest]).await;
    assert_eq!(json_of(&pool, &["blob", "collect", "--grace", "0", "--json"]).await["removed"], 1);
    pool.stop().await;
}
