//! A backup taken while jobs run, and a hub on another directory that goes on from it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::until;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::answers::digest;
use crate::command::{forge, text};

async fn succeeds(pool: &Pool, args: &[&str]) -> Value {
    let output = forge(pool, args).await;
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Every file below a directory.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn small(seed: &str) -> Value {
    changed(insurance(200_000), &[("/seed/value", json!(seed))])
}

/// Takes a while: many shards, one agent.
fn large(seed: &str) -> Value {
    let changes = [("/policy/shards", json!(64)), ("/policy/max_agents", json!(0)), ("/seed/value", json!(seed))];
    changed(insurance(8_000_000), &changes)
}

#[tokio::test]
async fn a_hub_goes_on_from_a_backup_taken_while_jobs_ran() {
    let mut pool = Pool::start(1).await;
    let expected = digest(&pool.api.execute(&large("L")).await.body);
    let blob = pool.api.put_blob(vec![7; 300_000]).await;
    let mut done = Vec::new();
    for number in 0..3 {
        done.push(pool.api.execute(&small(&number.to_string())).await);
    }
    let unfinished = pool.api.submit(&large("L")).await;
    let mut events = pool.api.events(&unfinished).await;
    events.find("a shard", |event| event.data["shards_done"].as_u64().unwrap_or(0) >= 2).await;
    // More jobs and more objects come and go while it is taken.
    let (api, (stop, stopped)) = (pool.api.clone(), tokio::sync::watch::channel(false));
    let load = tokio::spawn(async move {
        let mut number = 0;
        while !*stopped.borrow() {
            api.submit(&small(&format!("load {number}"))).await;
            api.put_blob(format!("{number}").repeat(70_000).into_bytes()).await;
            number += 1;
        }
    });
    let copy = pool.dir().join("copy");
    let (data, target) = (pool.dir().join("hub"), copy.to_str().unwrap().to_owned());
    let taken = succeeds(&pool, &["backup", &target, "--data", data.to_str().unwrap(), "--json"]).await;
    assert!(taken["audit_rows"].as_u64().unwrap() >= 5, "{taken:#}");
    stop.send(true).unwrap();
    load.await.unwrap();
    let state = pool.api.get(&format!("/api/v0/jobs/{unfinished}")).await;
    assert!(state.status.is_success());

    // Nobody else may read it; it is checked, and its own audit log holds.
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copy), mode(&copy.join("hub.key")), mode(&copy.join("hub.db"))), (0o700, 0o600, 0o600));
    succeeds(&pool, &["backup", "--check", &target]).await;
    succeeds(&pool, &["audit", "verify", &target, "--json"]).await;
    assert!(!data.join("backup-stage").exists());
    // Into what is there already, neither is written.
    for args in [
        &["backup", &target, "--data", data.to_str().unwrap()][..],
        &["restore", &target, "--data", data.to_str().unwrap()],
    ] {
        let refused = forge(&pool, args).await;
        assert!(!refused.status.success() && text(&refused.stderr).contains("not empty"), "{}", text(&refused.stderr));
    }

    // The old hub is gone for good; another goes on from the backup in its place.
    pool.kill_hub().await;
    let old = pool.dir().join("old");
    std::fs::rename(&data, &old).unwrap();
    succeeds(&pool, &["restore", &target, "--data", data.to_str().unwrap(), "--json"]).await;
    pool.restart_hub().await;
    for answer in &done {
        let job = answer.job();
        let state = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
        assert_eq!(state.body, answer.body, "a job that was acknowledged before is not what it was");
        let artifacts = pool.api.get(&format!("/api/v0/jobs/{job}/artifacts")).await;
        for artifact in artifacts.at("/items").as_array().unwrap() {
            let name = artifact["name"].as_str().unwrap();
            let bytes = pool.api.content(&format!("/api/v0/jobs/{job}/artifacts/{name}")).await;
            assert_eq!(forge_contract::Digest::of(&bytes).to_string(), artifact["digest"].as_str().unwrap(), "{name}");
        }
    }
    assert_eq!(pool.api.content(&format!("/api/v0/blobs/{blob}")).await, vec![7; 300_000]);
    let state = until("end of the job that was under way", || async {
        let answer = pool.api.get(&format!("/api/v0/jobs/{unfinished}")).await;
        forge_tests::api::is_final(&answer.body).then_some(answer.body)
    })
    .await;
    assert_eq!(digest(&state), expected, "it goes on to the same bits");
    pool.stop().await;
}

#[tokio::test]
async fn every_file_that_is_not_what_it_was_is_named() {
    let mut pool = Pool::start(1).await;
    pool.api.put_blob(vec![3; 400_000]).await;
    digest(&pool.api.execute(&small("S")).await.body);
    pool.hub.signal(Signal::TERM);
    assert!(pool.hub.wait().await.success());
    let copy = pool.dir().join("copy");
    let (data, target) = (pool.dir().join("hub"), copy.to_str().unwrap().to_owned());
    // Of a hub that does not run, by links.
    succeeds(&pool, &["backup", &target, "--link", "--data", data.to_str().unwrap()]).await;
    let found = files(&copy);
    let names: Vec<&str> = found.iter().map(|path| path.strip_prefix(&copy).unwrap().to_str().unwrap()).collect();
    assert!(names.contains(&"hub.db") && names.contains(&"hub.key") && names.contains(&"url.key"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("blobs/")), "{names:?}");
    let restored = pool.dir().join("restored");
    for path in &found {
        let name = path.strip_prefix(&copy).unwrap().to_str().unwrap();
        let whole = std::fs::read(path).unwrap();
        let mut bent = whole.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 0x10;
        // In its place a file of its own: a link would bend the hub's.
        let replace = |bytes: &[u8]| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for bytes in [Some(&bent[..]), Some(&whole[..whole.len() - 1]), None] {
            match bytes {
                Some(bytes) => replace(bytes),
                None => std::fs::remove_file(path).unwrap(),
            }
            for args in
                [&["backup", "--check", &target][..], &["restore", &target, "--data", restored.to_str().unwrap()]]
            {
                let refused = forge(&pool, args).await;
                assert_eq!(refused.status.code(), Some(8), "{name} {args:?}: {}", text(&refused.stderr));
                assert!(text(&refused.stderr).contains(name), "{name} is not named: {}", text(&refused.stderr));
            }
            assert!(!restored.exists() && !pool.dir().join("restored.forgepool-partial").exists());
            std::fs::write(path, &whole).unwrap();
        }
    }
    succeeds(&pool, &["restore", &target, "--data", restored.to_str().unwrap()]).await;
}
