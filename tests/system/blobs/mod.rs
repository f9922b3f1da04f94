//! Blobs against a running hub: kept, refused, resumed, read by jobs.

mod content;
mod disk;
mod hostile;
mod inputs;

use forge_contract::Digest;
use forge_tests::api::{Answer, Api};
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

/// Bytes that are the same in every run and compress badly.
fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(count.div_ceil(8)).flatten().collect();
    bytes.truncate(count);
    bytes
}

fn blob(digest: &Digest) -> String {
    format!("/api/v0/blobs/{digest}")
}

/// `PUT` of a body that is said to be part of `size` bytes.
async fn put(api: &Api, digest: &Digest, size: usize, offset: usize, body: impl Into<reqwest::Body>) -> Answer {
    let path = format!("{}?bytes={size}&offset={offset}", blob(digest));
    api.send(api.request(Method::PUT, &path).body(body)).await
}

/// Sends whole content that is new.
async fn store(api: &Api, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let answer = put(api, &digest, content.len(), 0, content.to_vec()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    digest
}

/// The whole list, as (digest, bytes).
async fn listed(api: &Api) -> Vec<(String, u64)> {
    let answer = api.get("/api/v0/blobs?limit=1000").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let items = answer.body["items"].as_array().unwrap();
    items.iter().map(|item| (item["digest"].as_str().unwrap().to_owned(), item["bytes"].as_u64().unwrap())).collect()
}

/// Waits until the hub has noticed the end of a broken request and says how far the upload is.
async fn upload_at(api: &Api, digest: &Digest, offset: usize) -> Value {
    until("offset of the upload", || async {
        let answer = api.get(&format!("/api/v0/uploads/{digest}")).await;
        (answer.at("/offset") == &json!(offset)).then_some(answer.body)
    })
    .await
}

/// Asserts that an answer is a problem with this status and code whose sentence holds these words.
fn refused(what: &str, answer: &Answer, status: u16, code: &str, says: &[&str]) {
    assert_eq!((answer.status.as_u16(), answer.at("/code").as_str()), (status, Some(code)), "{what}: {}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
    let detail = answer.at("/detail").as_str().unwrap_or_default();
    for words in says {
        assert!(detail.contains(words), "{what}: {words:?} is not in {detail:?}");
    }
    for field in ["/title", "/fix", "/trace_id"] {
        assert!(answer.at(field).as_str().is_some_and(|text| !text.is_empty()), "{what}: {field} of {}", answer.text);
    }
}

/// A number of `/proc/PID/status`, KiB.
fn memory_kib(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
