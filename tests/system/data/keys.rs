//! Values by key: conditions, races, an end of their own, and keys that try to be paths.

use std::sync::Arc;

use forge_tests::api::{Answer, Api};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::raw::Raw;
use reqwest::Method;
use serde_json::{Value, json};

use super::{refused, remove};

async fn put(api: &Api, path: &str, value: &str, condition: Option<(&str, &str)>) -> Answer {
    let request = api.request(Method::PUT, &format!("/api/v0/kv/{path}")).header("content-type", "text/plain");
    let request = match condition {
        Some((name, tag)) => request.header(name, tag),
        None => request,
    };
    api.send(request.body(value.to_owned())).await
}

async fn get(api: &Api, path: &str) -> Answer {
    api.get(&format!("/api/v0/kv/{path}")).await
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_value_is_kept_changed_and_removed() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let made = put(api, "n/a/b", "one", None).await;
    assert_eq!((made.status.as_u16(), made.at("/key"), made.at("/bytes")), (201, &json!("a/b"), &json!(3)));
    assert_eq!(made.at("/etag"), &json!(tag(&made)));
    let read = get(api, "n/a/b").await;
    assert_eq!((read.text.as_str(), tag(&read)), ("one", tag(&made)));
    assert_eq!(read.headers["content-type"], "text/plain");
    assert_eq!(read.headers["forge-digest"], forge_contract::Digest::of(b"one").to_string().as_str());
    let head = api.send(api.request(Method::HEAD, "/api/v0/kv/n/a/b")).await;
    assert_eq!(
        (head.status.as_u16(), head.text.as_str(), &head.headers["content-length"]),
        (200, "", &"3".parse().unwrap())
    );
    let part = api.send(api.request(Method::GET, "/api/v0/kv/n/a/b").header("range", "bytes=1-1")).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "n"));
    // The same value again has another tag: whoever read the first one is told of the change.
    let again = put(api, "n/a/b", "one", None).await;
    assert_eq!(again.status, 200);
    assert_ne!(tag(&again), tag(&made));
    let unchanged = api.request(Method::GET, "/api/v0/kv/n/a/b").header("if-none-match", tag(&again));
    assert_eq!(api.send(unchanged).await.status, 304);
    for (what, answer) in [
        ("stale If-Match", put(api, "n/a/b", "x", Some(("if-match", &tag(&made)))).await),
        ("If-None-Match: *", put(api, "n/a/b", "x", Some(("if-none-match", "*"))).await),
        ("If-Match of nothing", put(api, "n/none", "x", Some(("if-match", "*"))).await),
        ("reading", api.send(api.request(Method::GET, "/api/v0/kv/n/a/b").header("if-match", tag(&made))).await),
        ("deleting", api.send(api.request(Method::DELETE, "/api/v0/kv/n/a/b").header("if-match", tag(&made))).await),
    ] {
        refused(what, &answer, 412, "request.precondition", &["does not hold"]);
    }
    assert_eq!(get(api, "n/a/b").await.text, "one");
    assert_eq!(remove(api, "/api/v0/kv/n/a/b").await.status, 204);
    refused("gone", &get(api, "n/a/b").await, 404, "request.not_found", &[]);
    refused("gone", &remove(api, "/api/v0/kv/n/a/b").await, 404, "request.not_found", &[]);
    pool.stop().await;
}

/// Every answer has one row of the audit log, and what was not changed says why.
#[tokio::test]
async fn every_change_of_a_value_has_one_row() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    put(api, "n/a", "one", None).await;
    put(api, "n/a", "two", None).await;
    put(api, "n/a", "three", Some(("if-none-match", "*"))).await;
    remove(api, "/api/v0/kv/n/a").await;
    remove(api, "/api/v0/kv/n/a").await;
    let rows = api.get("/api/v0/audit?limit=6").await;
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (
            text("action").split(' ').next().unwrap().to_owned(),
            text("target"),
            row["status"].as_u64().unwrap(),
            text("code"),
        )
    };
    let found: Vec<_> = rows.at("/items").as_array().unwrap().iter().map(row).take(5).collect();
    let of =
        |method: &str, status, code: &str| (method.to_owned(), "/api/v0/kv/n/a".to_owned(), status, code.to_owned());
    let expected = [
        of("DELETE", 404, "request.not_found"),
        of("DELETE", 204, ""),
        of("PUT", 412, "request.precondition"),
        of("PUT", 200, ""),
        of("PUT", 201, ""),
    ];
    assert_eq!(found, expected, "{}", rows.text);
    let body = forge_contract::Digest::of(b"two").to_string();
    assert_eq!(rows.at("/items/3/body"), &json!(body));
    pool.stop().await;
}

/// 64 clients count with the same key by reading and comparing: no step is lost. 100 that read the same value: one wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_set_loses_nothing() {
    let pool = Pool::start(0).await;
    let api = Arc::new(pool.api.clone());
    assert_eq!(put(&api, "n/count", "0", Some(("if-none-match", "*"))).await.status, 201);
    let counters: Vec<_> = (0..64)
        .map(|_| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                loop {
                    let read = get(&api, "n/count").await;
                    let next = (read.text.parse::<u32>().unwrap() + 1).to_string();
                    let written = put(&api, "n/count", &next, Some(("if-match", &tag(&read)))).await;
                    match written.status.as_u16() {
                        200 => break,
                        412 => {}
                        other => panic!("{other} {}", written.text),
                    }
                }
            })
        })
        .collect();
    for counter in counters {
        counter.await.unwrap();
    }
    let read = get(&api, "n/count").await;
    assert_eq!(read.text, "64");
    let start = tag(&read);
    let racers: Vec<_> = (0..100)
        .map(|number| {
            let (api, start) = (Arc::clone(&api), start.clone());
            tokio::spawn(
                async move { put(&api, "n/count", &number.to_string(), Some(("if-match", &start))).await.status },
            )
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += u32::from(racer.await.unwrap() == 200);
    }
    assert_eq!(won, 1);
    pool.stop().await;
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    for key in ["a", "b/1", "b/2", "b/3", "c+d"] {
        assert_eq!(put(api, &format!("n/{key}"), key, None).await.status, 201);
    }
    put(api, "other/x", "x", None).await;
    let keys = |answer: &Answer| -> Vec<String> {
        answer.at("/items").as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect()
    };
    let (mut path, mut all) = ("/api/v0/kv/n?limit=2".to_owned(), Vec::new());
    loop {
        let page = api.get(&path).await;
        all.extend(keys(&page));
        let Some(next) = page.at("/next").as_str() else { break };
        next.clone_into(&mut path);
    }
    assert_eq!(all, ["a", "b/1", "b/2", "b/3", "c+d"]);
    assert_eq!(keys(&api.get("/api/v0/kv/n?prefix=b/&after=b/1").await), ["b/2", "b/3"]);
    assert_eq!(keys(&api.get("/api/v0/kv/n?prefix=c%2B").await), ["c+d"]);
    assert_eq!(keys(&api.get("/api/v0/kv/empty").await), [""; 0]);
    let spaces = api.get("/api/v0/kv").await;
    assert_eq!((spaces.at("/items/0/namespace"), spaces.at("/items/0/keys")), (&json!("n"), &json!(5)));
    assert_eq!(spaces.at("/items/1/namespace"), &json!("other"));
    for bad in [
        "/api/v0/kv/n?limit=0",
        "/api/v0/kv/n?limit=1001",
        "/api/v0/kv/n?prefix=%00",
        "/api/v0/kv/n?nope=1",
        "/api/v0/kv?after=/",
    ] {
        assert_eq!(api.get(bad).await.status, 400, "{bad}");
    }
    pool.stop().await;
}

#[tokio::test]
async fn values_have_an_end_and_a_size() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let made = put(api, "n/k?ttl_s=1", "x", None).await;
    assert!(made.at("/expires_at").as_str().unwrap().ends_with('Z'), "{}", made.text);
    let read = get(api, "n/k").await;
    assert_eq!(read.headers["forge-expires-at"].to_str().unwrap(), made.at("/expires_at"));
    forge_tests::until("end of the value", || async { (get(api, "n/k").await.status == 404).then_some(()) }).await;
    assert_eq!(put(api, "n/k", "x", Some(("if-none-match", "*"))).await.status, 201, "what has expired is not there");
    assert!(get(api, "n/k").await.headers.get("forge-expires-at").is_none());
    for bad in ["0", "315360001", "-1", "x"] {
        assert_eq!(put(api, &format!("n/k?ttl_s={bad}"), "x", None).await.status, 400, "{bad}");
    }
    let full = "x".repeat(1 << 20);
    assert_eq!(put(api, "n/full", &full, None).await.status, 201);
    refused("a byte more", &put(api, "n/full", &(full + "x"), None).await, 413, "request.too_large", &["1048576"]);
    let packed = api.request(Method::PUT, "/api/v0/kv/n/k").header("content-encoding", "gzip").body("x");
    refused("packed", &api.send(packed).await, 415, "request.media_type", &["as it is sent"]);
    refused("no tag", &put(api, "n/k", "x", Some(("if-match", "1"))).await, 400, "request.schema", &["If-Match"]);
    let empty = put(api, "n/empty", "", None).await;
    assert_eq!((empty.status.as_u16(), get(api, "n/empty").await.text.as_str()), (201, ""));
    pool.stop().await;
}

async fn by_hand(api: &Api, path: &str) -> Answer {
    let mut raw = Raw::open(api).await;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx",
        api.key
    );
    raw.send(head.as_bytes()).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {path}"))
}

/// Bad input 33: keys that try to leave their place. No client would send them so.
#[tokio::test]
async fn keys_that_try_to_be_paths_are_refused() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    for (key, words) in [
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("%2e%2e/x", "'..'"),
        ("%2e%2e%2fx", "'..'"),
        ("a/%2e", "'.'"),
        ("%252e%252e", "another character"),
        ("a%00b", "another character"),
        ("%2fetc/passwd", "empty"),
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("a%5cb", "another character"),
        ("a%20b", "another character"),
        ("%c3%a4", "another character"),
        (&"k".repeat(513), "512"),
    ] {
        refused(key, &by_hand(api, &format!("/api/v0/kv/n/{key}")).await, 400, "request.schema", &["the key", words]);
    }
    for namespace in ["..", "%2e%2e", ".a", "a%2fb", "%00", &"n".repeat(65)] {
        let answer = by_hand(api, &format!("/api/v0/kv/{namespace}/k")).await;
        refused(namespace, &answer, 400, "request.schema", &["the namespace"]);
    }
    assert_eq!(api.get("/api/v0/kv").await.at("/items"), &json!([]), "nothing was kept");
    pool.stop().await;
}

/// A job's artifacts stand under the namespace that its contract names, from the moment it is over.
#[tokio::test]
async fn artifacts_of_a_job_stand_under_its_namespace() {
    let pool = Pool::start(1).await;
    let api = &pool.api;
    let contract = changed(insurance(100_000), &[("/artifacts", json!({"kv_namespace": "mine"}))]);
    let answer = api.execute(&contract).await;
    let job = answer.job();
    let listed = api.get(&format!("/api/v0/kv/mine?prefix={job}/&limit=1000")).await;
    let entries = listed.at("/items").as_array().unwrap();
    let links = answer.at("/artifacts").as_array().unwrap();
    assert!(links.len() > 5 && entries.len() == links.len(), "{}", listed.text);
    for link in links {
        let kv = link["kv"].as_str().unwrap();
        let entry = entries.iter().find(|entry| kv == format!("mine/{}", entry["key"].as_str().unwrap())).unwrap();
        assert_eq!(
            (&entry["digest"], &entry["bytes"], &entry["job_id"]),
            (&link["digest"], &link["bytes"], &json!(job))
        );
        let bytes = api.content(&format!("/api/v0/kv/{kv}")).await;
        assert_eq!(json!(forge_contract::Digest::of(&bytes).to_string()), link["digest"], "{kv}");
    }
    let result: Value =
        serde_json::from_slice(&api.content(&format!("/api/v0/kv/mine/{job}/result_json")).await).unwrap();
    assert_eq!(&result, answer.at("/hub/output"));
    // A key is the client's own: what it stands for stays.
    assert_eq!(remove(api, &format!("/api/v0/kv/mine/{job}/result_json")).await.status, 204);
    assert_eq!(api.get(&format!("/api/v0/jobs/{job}/artifacts/result_json")).await.status, 200);
    let silent = changed(insurance(1000), &[("/artifacts", json!({"kv_namespace": "none", "persist": false}))]);
    assert_eq!(api.execute(&silent).await.status, 200);
    assert_eq!(api.get("/api/v0/kv/none").await.at("/items"), &json!([]));
    pool.stop().await;
}
