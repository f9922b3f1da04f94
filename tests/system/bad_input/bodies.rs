//! Bad bodies and paths of the security design over every route that takes one: each is refused with its place, the rule
//! and a fix, and leaves nothing behind.

use forge_contract::Digest;
use forge_tests::api::{Answer, Api};
use forge_tests::pool::Pool;
use forge_tests::raw::Raw;
use reqwest::Method;
use serde_json::{Value, json};

use super::zeros;
use crate::tenants::routes::{Body, Route, Things, routes};

/// What is there, but for what moves by itself.
async fn state(api: &Api) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for path in [
        "/api/v0/organisations",
        "/api/v0/organisations/default/members",
        "/api/v0/projects",
        "/api/v0/projects/default/budget",
        "/api/v0/keys?revoked=true",
        "/api/v0/agents",
        "/api/v0/kernels",
        "/api/v0/blobs",
        "/api/v0/kv",
        "/api/v0/kv/mine",
        "/api/v0/vmem",
        "/api/v0/ledger",
        "/api/v0/payouts",
        "/api/v0/jobs?status=COMPLETED",
        "/api/v0/jobs?status=RUNNING",
    ] {
        let mut answer = api.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        if let Some(items) = answer.body.get_mut("items").and_then(Value::as_array_mut) {
            for item in items.iter_mut().filter_map(Value::as_object_mut) {
                item.retain(|name, _| !["last_used_at_ms", "last_seen_at_ms", "fuel_per_ms"].contains(&name.as_str()));
            }
        }
        // A head is signed anew whenever it is asked for.
        answer.body.as_object_mut().unwrap().remove("head");
        all.push((path, answer.body));
    }
    all
}

/// A refusal that says what, where and how to mend it.
fn clear(what: &str, answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.at("/code")), (status, &json!(code)), "{what}: {}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
    for said in ["/detail", "/fix", "/trace_id"] {
        assert!(answer.at(said).as_str().is_some_and(|text| !text.is_empty()), "{what}: no {said} in {}", answer.text);
    }
}

/// What is wrong with a body: its bytes, its headers, and how it is refused, with the place where there is one.
struct Bad {
    what: &'static str,
    body: Vec<u8>,
    headers: &'static [(&'static str, &'static str)],
    refusal: (u16, &'static str),
    place: Option<&'static str>,
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const PACKED: &[(&str, &str)] = &[("content-type", "application/json"), ("content-encoding", "gzip")];

/// A good body with more in front of its members.
fn with(good: &Value, more: &str) -> Vec<u8> {
    let text = good.to_string();
    let rest = text.strip_prefix('{').expect("bodies are objects");
    let comma = if rest == "}" { "" } else { "," };
    format!("{{{more}{comma}{rest}").into_bytes()
}

fn bad(good: &Value) -> Vec<Bad> {
    let text = good.to_string().into_bytes();
    let of = |what, body, refusal, place| Bad { what, body, headers: JSON, refusal, place };
    let malformed = (400, "request.malformed");
    let schema = (400, "request.schema");
    let deep = format!("\"x\": {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let kind = |what, headers, body| Bad { what, body, headers, refusal: (415, "request.media_type"), place: None };
    vec![
        of("1 truncated", text[..text.len() - 1].to_vec(), malformed, None),
        of("1 two values", [&text[..], b" 1"].concat(), malformed, None),
        of("2 depth", with(good, &deep), malformed, Some("/x/0")),
        of("3 duplicate", with(good, "\"x\": 1, \"x\": 2"), malformed, Some("/x")),
        of("3 duplicate below", with(good, "\"x\": {\"y\": 1, \"y\": 2}"), malformed, Some("/x/y")),
        of("4 NaN", with(good, "\"x\": NaN"), malformed, Some("/x")),
        of("4 -Infinity", with(good, "\"x\": -Infinity"), malformed, Some("/x")),
        of("4 1e999", with(good, "\"x\": 1e999"), malformed, Some("/x")),
        of("5 u64", with(good, "\"x\": 18446744073709551615"), schema, Some("/x")),
        of("5 i64", with(good, "\"x\": -9223372036854775807"), schema, Some("/x")),
        of(
            "wrong UTF-8",
            with(good, "\"x\": 1").iter().map(|b| if *b == b'x' { 0xff } else { *b }).collect(),
            malformed,
            None,
        ),
        of("no text", b"\0\x01\x02".to_vec(), malformed, None),
        of("a list", b"[]".to_vec(), schema, None),
        of("null", b"null".to_vec(), schema, None),
        of("text", b"\"x\"".to_vec(), schema, None),
        of("an unknown member", with(good, "\"x\": 1"), schema, Some("/x")),
        of("nothing but blanks", b"  \n".to_vec(), malformed, None),
        Bad { refusal: (413, "request.too_large"), ..of("14 oversized", vec![b' '; (1 << 20) + 1], schema, None) },
        Bad { headers: PACKED, ..of("14 no gzip", b"no gzip".to_vec(), malformed, None) },
        Bad { headers: PACKED, ..of("14 bomb", zeros(64 << 20), (413, "request.too_large"), None) },
        kind("text/plain", &[("content-type", "text/plain")], text.clone()),
        kind("no type", &[], text.clone()),
        kind("a form", &[("content-type", "multipart/form-data; boundary=x")], text.clone()),
        kind("br", &[("content-type", "application/json"), ("content-encoding", "br")], text),
    ]
}

#[tokio::test]
async fn every_body_is_read_as_strictly_as_a_contract() {
    let mut pool = Pool::start(2).await;
    let api = pool.api.clone();
    let things = Things::make(&mut pool, &api, "default").await;
    let document = api.get("/api/v0/openapi.json").await.body;
    let before = state(&api).await;
    let mut bodies = 0;
    for Route { method, template, path, body, .. } in routes(&things) {
        let Body::Json(good) = body else { continue };
        bodies += 1;
        let optional = document["paths"][template][method.to_lowercase()]["requestBody"]["required"] != true;
        for Bad { what, body, headers, refusal: (status, code), place } in bad(&good) {
            let what = format!("{what}: {method} {template}");
            let mut request = api.request(method.parse().unwrap(), &path).body(body);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = api.send(request).await;
            clear(&what, &answer, status, code);
            if let Some(place) = place {
                let found = answer.at("/pointer").as_str().unwrap_or_default();
                assert!(found.starts_with(place), "{what}: expected {place} in {}", answer.text);
            }
        }
        if !optional {
            let empty = api.request(method.parse().unwrap(), &path).header("content-type", "application/json");
            clear(&format!("no body: {method} {template}"), &api.send(empty).await, 400, "request.malformed");
        }
    }
    assert!(bodies >= 17, "{bodies} routes that take JSON");
    assert_eq!(state(&api).await, before);
    pool.stop().await;
}

/// Members of bodies that can be read and are not what they must be.
fn members(t: &Things) -> Vec<(&'static str, String, Value, &'static str, &'static str)> {
    let long = "x".repeat(300);
    let (member, key) = (&t.member, &t.key);
    let members = "/api/v0/organisations/default/members";
    vec![
        ("POST", "/api/v0/organisations".into(), json!({ "id": "../x" }), "/id", "lower-case letters"),
        ("POST", "/api/v0/organisations".into(), json!({ "id": "x\u{0}" }), "/id", "lower-case letters"),
        ("POST", "/api/v0/organisations".into(), json!({ "id": long }), "/id", "1 to 40"),
        ("POST", "/api/v0/organisations".into(), json!({ "id": "x", "name": "" }), "/name", "1 to 128 characters"),
        ("POST", "/api/v0/organisations".into(), json!({ "id": "x", "name": "a\u{7}" }), "/name", "control character"),
        (
            "POST",
            "/api/v0/organisations".into(),
            json!({ "id": "x", "ceilings": { "storage_bytes": -1 } }),
            "/ceilings/storage_bytes",
            "-1",
        ),
        ("PATCH", "/api/v0/organisations/default".into(), json!({ "name": long }), "/name", "1 to 128 characters"),
        (
            "PATCH",
            "/api/v0/organisations/default".into(),
            json!({ "ceilings": { "fuel_per_job": 1.5 } }),
            "/ceilings/fuel_per_job",
            "1.5",
        ),
        ("POST", members.into(), json!({ "name": "eve", "role": "king" }), "/role", "king"),
        ("POST", members.into(), json!({ "name": "", "role": "viewer" }), "/name", "1 to 128 characters"),
        ("PATCH", format!("{members}/{member}"), json!({ "role": ["owner"] }), "/role", "role: "),
        ("POST", "/api/v0/projects".into(), json!({ "id": "A" }), "/id", "lower-case letters"),
        (
            "POST",
            "/api/v0/projects".into(),
            json!({ "id": "x", "limits": { "verify_min": "FULL" } }),
            "/limits/verify_min",
            "FULL",
        ),
        (
            "POST",
            "/api/v0/projects".into(),
            json!({ "id": "x", "pool": { "labels": ["a\nb"] } }),
            "/pool/labels/0",
            "printable ASCII",
        ),
        (
            "PATCH",
            "/api/v0/projects/default".into(),
            json!({ "limits": { "concurent_jobs": 1 } }),
            "/limits/concurent_jobs",
            "concurrent_jobs",
        ),
        (
            "PATCH",
            "/api/v0/projects/default".into(),
            json!({ "pool": { "region": "x".repeat(65) } }),
            "/pool/region",
            "1 to 64",
        ),
        ("POST", "/api/v0/projects".into(), json!({ "id": "x", "limits": [1] }), "/limits", "an object"),
        ("POST", "/api/v0/projects".into(), json!({ "id": "x", "pool": [[], "eu"] }), "/pool", "an object"),
        ("POST", members.into(), json!({ "name": "eve", "role": { "owner": null } }), "/role", "text"),
        ("POST", "/api/v0/keys".into(), json!({ "scopes": [] }), "/scopes", "at least one"),
        ("POST", "/api/v0/keys".into(), json!({ "scopes": ["read", "root"] }), "/scopes/1", "root"),
        ("POST", "/api/v0/keys".into(), json!({ "scopes": ["read"], "seconds": 0 }), "/seconds", "found 0"),
        (
            "POST",
            format!("/api/v0/keys/{key}/rotate"),
            json!({ "grace_seconds": 86_401 }),
            "/grace_seconds",
            "0 to 86400",
        ),
        (
            "POST",
            "/api/v0/projects/default/credits".into(),
            json!({ "credits_micro": 0, "reference": "r" }),
            "/credits_micro",
            "found 0",
        ),
        (
            "POST",
            "/api/v0/projects/default/credits".into(),
            json!({ "credits_micro": 1, "reference": "a\nb" }),
            "/reference",
            "control characters",
        ),
        ("PUT", "/api/v0/projects/default/budget".into(), json!({ "budget_micro": -1 }), "/budget_micro", "-1"),
        (
            "PUT",
            "/api/v0/projects/default/budget".into(),
            json!({ "budget_micro": 1, "budget_period": "week" }),
            "/budget_period",
            "week",
        ),
        (
            "POST",
            "/api/v0/payouts".into(),
            json!({ "agent_id": t.agent, "credits_micro": 1, "reference": "" }),
            "/reference",
            "1 to 200",
        ),
        ("POST", "/api/v0/agents/tokens".into(), json!({ "provider": "" }), "/provider", "1 to 64"),
        ("POST", "/api/v0/agents/tokens".into(), json!({ "provider": "a\u{1b}[2J" }), "/provider", "control character"),
        ("PUT", format!("/api/v0/agents/{}/reservation", t.agent), json!({ "reserved_for": 7 }), "/reserved_for", "7"),
        (
            "POST",
            format!("/api/v0/blobs/{}/urls", t.blob),
            json!({ "method": "GET", "seconds": 901 }),
            "/seconds",
            "1 to 900",
        ),
        ("PATCH", "/api/v0/kernels/default/counter/1".into(), json!({ "state": "refused" }), "/state", "verifiers"),
        (
            "PATCH",
            "/api/v0/kernels/default/counter/1".into(),
            json!({ "state": "yanked", "reason": "x".repeat(501) }),
            "/reason",
            "0 to 500",
        ),
        (
            "POST",
            format!("/api/v0/jobs/{}/replay", t.job),
            json!({ "policy": { "shards": 1 } }),
            "/policy/shards",
            "pinned",
        ),
    ]
}

/// A request by hand: no client's idea of a path comes between.
async fn by_hand(api: &Api, method: &str, path: &str) -> Answer {
    let mut raw = Raw::open(api).await;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/x-npy\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n",
        api.key
    );
    raw.send(head.as_bytes()).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

#[tokio::test]
async fn what_a_body_says_and_a_path_names_is_checked_member_by_member() {
    let mut pool = Pool::start(2).await;
    let api = pool.api.clone();
    let things = Things::make(&mut pool, &api, "default").await;
    let before = state(&api).await;
    for (method, path, body, pointer, says) in members(&things) {
        let answer = api.json(method.parse::<Method>().unwrap(), &path, &body).await;
        let what = format!("{method} {path} {body}");
        clear(&what, &answer, 400, "request.schema");
        assert_eq!(answer.at("/pointer"), pointer, "{what}: {}", answer.text);
        assert!(answer.at("/detail").as_str().unwrap().contains(says), "{what}: {says:?} is not in {}", answer.text);
    }
    // 33: what is named in a path is looked for, and never a place.
    let other = Digest::of(b"other").to_string();
    for name in ["%2e%2e", "..%2f..%2fhub.key", "%00", "%2fetc%2fpasswd", "a%5cb", "%ff", "%c3%a4", "A%20b", &other] {
        for (method, path) in [
            ("GET", format!("/api/v0/organisations/{name}")),
            ("GET", format!("/api/v0/organisations/{name}/members")),
            ("GET", format!("/api/v0/organisations/default/members/{name}")),
            ("DELETE", format!("/api/v0/organisations/default/members/{name}")),
            ("GET", format!("/api/v0/projects/{name}")),
            ("GET", format!("/api/v0/projects/{name}/budget")),
            ("GET", format!("/api/v0/keys/{name}")),
            ("DELETE", format!("/api/v0/keys/{name}")),
            ("GET", format!("/api/v0/agents/{name}")),
            ("GET", format!("/api/v0/vmem/{name}")),
            ("POST", format!("/api/v0/vmem/{name}x%2f")),
            ("DELETE", format!("/api/v0/vmem/{name}/1")),
            ("GET", format!("/api/v0/vmem/theirs-alone/{name}")),
            ("GET", format!("/api/v0/kernels/default/{name}/1")),
            ("GET", format!("/api/v0/components/{name}")),
            ("GET", format!("/api/v0/uploads/{name}")),
            ("GET", format!("/api/v0/jobs/{name}/artifacts/result_json")),
            ("GET", format!("/api/v0/jobs/{}/artifacts/{name}", things.job)),
        ] {
            let (what, answer) = (format!("33 {method} {path}"), by_hand(&api, method, &path).await);
            let status = answer.status.as_u16();
            assert!([400, 404].contains(&status), "{what}: {status} {}", answer.text);
            clear(&what, &answer, status, if status == 400 { "request.schema" } else { "request.not_found" });
        }
    }
    assert_eq!(state(&api).await, before);
    pool.stop().await;
}

/// 14: fewer bytes than promised, then silence. Whatever the route, it is given up in time and leaves nothing.
#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_on_every_kind_of_route() {
    let pool = Pool::start_with(0, &["--body-ms", "1500"]).await;
    let api = &pool.api;
    let digest = Digest::of(b"never");
    let before = state(api).await;
    for (line, kind, sent) in [
        ("POST /api/v0/keys".to_owned(), "application/json", "{\"scopes\":"),
        ("PUT /api/v0/projects/default/budget".to_owned(), "application/json", "{"),
        ("PUT /api/v0/kv/mine/slow".to_owned(), "text/plain", "slow"),
        ("POST /api/v0/vmem/slow".to_owned(), "application/x-npy", "\u{1}NUMPY"),
        (format!("POST /api/v0/kernels?digest={digest}&bytes=100"), "application/wasm", "\0asm"),
        (format!("PUT /api/v0/blobs/{digest}?bytes=100"), "application/octet-stream", "never"),
    ] {
        let mut raw = Raw::open(api).await;
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\ncontent-length: 100\r\n\r\n",
            api.key
        );
        raw.send(head.as_bytes()).await;
        raw.send(sent.as_bytes()).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer to {line}"));
        clear(&format!("14 {line}"), &answer, 408, "request.timeout");
    }
    assert_eq!(state(api).await, before);
    pool.stop().await;
}
