//! The audit log through the command line: taken out, checked without a network, and found out where it was touched.

use forge_tests::api::Api;
use forge_tests::contract::insurance;
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::command::{forge, text};

fn key_of(pool: &Pool) -> String {
    pool.ready["hub_key"].as_str().unwrap().to_owned()
}

/// What `audit verify` says, and its exit code.
async fn verify(pool: &Pool, path: &std::path::Path, more: &[&str]) -> (Value, i32) {
    let mut args = vec!["audit", "verify", path.to_str().unwrap(), "--json"];
    args.extend(more);
    let output = forge(pool, &args).await;
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    (said, output.status.code().unwrap())
}

#[tokio::test]
async fn what_was_touched_is_named() {
    let mut pool = Pool::start(1).await;
    let (dir, hub_key) = (tempfile::tempdir().unwrap(), key_of(&pool));
    pool.api.execute(&insurance(100_000)).await;
    let traced = "the-row-that-is-changed";
    let request = pool.api.request(reqwest::Method::POST, "/api/v0/settlement").header("x-trace-id", traced);
    assert_eq!(pool.api.send(request).await.status, 200);
    let listed = forge(&pool, &["audit", "list"]).await;
    let shown = text(&listed.stdout);
    assert!(shown.contains("POST /api/v0/ops/execute") && shown.contains("127.0.0.1"), "{shown}");
    let found = forge(&pool, &["audit", "list", "--trace", traced, "--json"]).await;
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let seq = found["items"][0]["seq"].as_u64().unwrap();

    let (file, head) = (dir.path().join("audit.jsonl"), dir.path().join("head.json"));
    let exported = forge(&pool, &["audit", "export", "-o", file.to_str().unwrap()]).await;
    assert!(exported.status.success(), "{}", text(&exported.stderr));
    let kept = forge(&pool, &["audit", "head"]).await;
    std::fs::write(&head, &kept.stdout).unwrap();
    let (said, code) = verify(&pool, &file, &["--hub-key", &hub_key, "--head", head.to_str().unwrap()]).await;
    assert_eq!((said["ok"].as_bool(), code), (Some(true), 0), "{said:#}");
    assert_eq!(said["rows"], said["last"]);
    // Another hub's key.
    let other = format!("{}{}", if hub_key.starts_with('A') { "B" } else { "A" }, &hub_key[1..]);
    let (said, code) = verify(&pool, &file, &["--hub-key", &other]).await;
    assert_eq!((said["ok"].as_bool(), code), (Some(false), 8), "{said:#}");
    // One letter.
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.replacen(traced, "the-row-that-is-changeD", 1)).unwrap();
    let (said, code) = verify(&pool, &file, &["--hub-key", &hub_key]).await;
    assert_eq!((&said["faults"], code), (&json!([format!("row {seq} was changed")]), 8));

    // The data directory itself: while the hub runs, after it, and with one letter changed in the file.
    let data = pool.dir().join("hub");
    let (said, code) = verify(&pool, &data, &["--hub-key", &hub_key, "--head", head.to_str().unwrap()]).await;
    assert_eq!((said["ok"].as_bool(), code), (Some(true), 0), "{said:#}");
    pool.hub.signal(rustix::process::Signal::TERM);
    assert!(pool.hub.wait().await.success());
    let (said, code) = verify(&pool, &data, &["--hub-key", &hub_key]).await;
    assert_eq!((said["ok"].as_bool(), code), (Some(true), 0), "{said:#}");
    assert_eq!(said["signed_up_to"], said["last"], "a hub that stops signs what it leaves: {said:#}");
    flip(&data.join("hub.db"), traced.as_bytes());
    let (said, code) = verify(&pool, &data, &["--hub-key", &hub_key]).await;
    assert_eq!((&said["faults"], code), (&json!([format!("row {seq} was changed")]), 8));
    // A log that ends before what somebody kept a head of.
    let whole = whole.replace("\"purpose\":\"export\"", "\"purpose\":\"Export\"");
    std::fs::write(&file, whole).unwrap();
    assert_eq!(verify(&pool, &file, &["--hub-key", &hub_key]).await.1, 8);
}

/// Changes the last letter of every place where these bytes stand in a file.
fn flip(path: &std::path::Path, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    let places: Vec<usize> =
        file.windows(bytes.len()).enumerate().filter(|(_, w)| *w == bytes).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the row is not in {}", path.display());
    for place in places {
        file[place + bytes.len() - 1] ^= 1;
    }
    std::fs::write(path, file).unwrap();
}

#[tokio::test]
async fn a_projects_export_holds_although_others_rows_are_hidden() {
    let pool = Pool::start_with(1, &["--announce-project", "other"]).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Api::new(pool.api.url.clone(), pool.ready["project_keys"]["other"].as_str().unwrap().to_owned());
    for _ in 0..3 {
        pool.api.execute(&insurance(100_000)).await;
        other.execute(&insurance(100_000)).await;
    }
    let own = other.get("/api/v0/audit?limit=100").await;
    let items = own.at("/items").as_array().unwrap();
    assert!(items.iter().all(|row| row["project"] == "other"), "{}", own.text);
    assert_eq!(items.iter().filter(|row| row["action"] == "POST /api/v0/ops/execute").count(), 3);
    let export = other.get("/api/v0/audit/export").await.text;
    assert!(!export.contains("\"project\":\"default\"") && export.contains("\"project\":\"other\""), "{export}");
    let file = dir.path().join("other.jsonl");
    std::fs::write(&file, &export).unwrap();
    let (said, code) = verify(&pool, &file, &["--hub-key", &key_of(&pool)]).await;
    assert_eq!(
        (said["ok"].as_bool(), said["scope"].as_str(), code),
        (Some(true), Some("organisation other"), 0),
        "{said:#}"
    );
    assert_eq!(said["rows"].as_u64().unwrap() - said["hidden"].as_u64().unwrap(), items.len() as u64);
    // A row of somebody else cannot be left out either.
    let hidden = export.lines().position(|line| line.starts_with("{\"seq\":") && !line.contains("at_ms")).unwrap();
    let without: Vec<&str> =
        export.split_inclusive('\n').enumerate().filter(|(at, _)| *at != hidden).map(|(_, l)| l).collect();
    std::fs::write(&file, without.concat()).unwrap();
    assert_eq!(verify(&pool, &file, &["--hub-key", &key_of(&pool)]).await.1, 8);
    pool.stop().await;
}
