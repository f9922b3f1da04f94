//! Bad input 33 to 36 of the security design: paths, signatures, lies about content, overwriting.

use forge_contract::Digest;
use forge_tests::api::{Answer, Api};
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::raw::Raw;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{blob, bytes, listed, put, refused, store, upload_at};
use crate::answers::digest;

/// What stands where a digest should, as it goes over the line.
fn wrong_names(digest: &Digest) -> Vec<String> {
    let upper = digest.to_string().to_uppercase();
    let mut names: Vec<String> = [
        "..",
        ".",
        "../hub.key",
        "../../hub.key",
        "..%2fhub.key",
        "%2e%2e",
        "%2e%2e%2fhub.key",
        "%2E%2E/%2E%2E/etc/passwd",
        "%00",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "..%5c..%5chub.key",
        "%FF",
        "x",
        "tmp",
    ]
    .map(str::to_owned)
    .into();
    names.extend([
        upper,
        format!("{digest}%00"),
        format!("{digest}/../{digest}"),
        format!("%00{digest}"),
        format!("{digest}.5.part"),
    ]);
    names
}

/// A request by hand: no client's idea of a path comes between.
async fn by_hand(api: &Api, method: &str, path: &str, body: &str) -> Answer {
    let mut raw = Raw::open(api).await;
    let host = api.url.trim_start_matches("http://");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        api.key,
        body.len()
    );
    raw.send(head.as_bytes()).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

#[tokio::test]
async fn no_path_leads_out_of_the_store() {
    let pool = Pool::start(1).await;
    let api = &pool.api;
    let contract = changed(insurance(2_000_000), &[("/policy/shards", json!(16))]);
    let undisturbed = digest(&api.execute(&contract).await.body);
    let content = bytes(1_000, 1);
    let stored = store(api, &content).await;
    let before = (listed(api).await, api.get("/api/v0/kernels").await.body);
    let running = api.submit(&contract).await;
    let url = r#"{"method": "GET", "seconds": 5}"#;
    for name in wrong_names(&stored) {
        for (method, path, body) in [
            ("GET", format!("/api/v0/blobs/{name}"), ""),
            ("PUT", format!("/api/v0/blobs/{name}?bytes=1"), "x"),
            ("POST", format!("/api/v0/blobs/{name}/urls"), url),
            ("GET", format!("/api/v0/uploads/{name}"), ""),
            ("GET", format!("/api/v0/signed/{name}?project=default&bytes=1&expires=1&mac=00"), ""),
            ("GET", format!("/api/v0/blobs?before={name}"), ""),
        ] {
            let what = format!("33 {method} {path}");
            let answer = by_hand(api, method, &path, body).await;
            let code = answer.at("/code").as_str().unwrap_or_default();
            let clear = match answer.status.as_u16() {
                400 => code == "request.schema",
                403 => code == "request.signature",
                404 => code == "request.not_found",
                _ => false,
            };
            assert!(clear, "{what}: {} {}", answer.status, answer.text);
            assert!(answer.at("/detail").is_string() && answer.at("/fix").is_string(), "{what}: {}", answer.text);
        }
    }
    refused("33", &by_hand(api, "GET", "/api/v0/blobs/%2e%2e", "").await, 400, "request.schema", &["64", "'..'"]);
    let nul = by_hand(api, "GET", "/api/v0/blobs/a%00b", "").await;
    refused("33 NUL", &nul, 400, "request.schema", &["found 3", "\\u{0}"]);
    assert_eq!(by_hand(api, "GET", "/api/v0/blobs/a\0b", "").await.status, 400);
    assert_eq!((listed(api).await, api.get("/api/v0/kernels").await.body), before);
    assert_eq!(digest(&api.finished(&running).await), undisturbed);
    pool.stop().await;
}

/// A URL's value of a field, and the URL with another.
fn with_field(url: &str, field: &str, change: impl Fn(&str) -> String) -> String {
    let (head, query) = url.split_once('?').unwrap();
    let pairs = query.split('&').map(|pair| match pair.split_once('=').unwrap() {
        (name, value) if name == field => format!("{name}={}", change(value)),
        (name, value) => format!("{name}={value}"),
    });
    format!("{head}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// The same with its last character changed to another hexadecimal digit.
fn nudged(text: &str) -> String {
    let last = text.chars().last().unwrap();
    format!("{}{}", &text[..text.len() - 1], if last == '1' { '2' } else { '1' })
}

async fn signed(api: &Api, digest: &Digest, asked: serde_json::Value) -> String {
    let request = api.request(Method::POST, &format!("{}/urls", blob(digest)));
    let answer = api.send(request.json(&asked)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.at("/url").as_str().unwrap().to_owned()
}

/// A request without any key.
async fn bare(api: &Api, method: Method, url: &str, host: Option<&str>, body: Vec<u8>) -> Answer {
    let mut request = forge_tests::api::http().request(method, url).body(body);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    api.send(request).await
}

#[tokio::test]
async fn a_signed_url_is_good_for_what_was_signed_and_nothing_else() {
    let pool = Pool::start_with(0, &["--announce-project", "second"]).await;
    let api = &pool.api;
    let content = bytes(5_000, 2);
    let (there, other) = (store(api, &content).await, store(api, b"other").await);
    let new = bytes(7_000, 3);
    let coming = Digest::of(&new);
    let get = signed(api, &there, json!({"method": "GET", "seconds": 900})).await;
    let put_url = signed(api, &coming, json!({"method": "PUT", "seconds": 900, "bytes": 7_000})).await;

    let answer = forge_tests::api::http().get(&get).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.unwrap() == content);
    let part = forge_tests::api::http().get(&get).header("range", "bytes=1-2").send().await.unwrap();
    assert!(part.status() == 206 && part.bytes().await.unwrap() == content[1..3]);
    let before = listed(api).await;

    for url in [&get, &put_url] {
        let method = if url == &get { Method::GET } else { Method::PUT };
        let swapped = if url == &get { Method::PUT } else { Method::GET };
        let (mine, another) = if url == &get { (&there, &other) } else { (&coming, &there) };
        let altered = [
            ("method", swapped, url.clone(), None),
            ("host", method.clone(), url.clone(), Some("elsewhere:80")),
            ("path and digest", method.clone(), url.replace(&mine.to_string(), &another.to_string()), None),
            ("project", method.clone(), with_field(url, "project", |_| "second".into()), None),
            ("length", method.clone(), with_field(url, "bytes", nudged), None),
            ("expiry", method.clone(), with_field(url, "expires", nudged), None),
            ("signature", method.clone(), with_field(url, "mac", nudged), None),
            ("signature in capitals", method.clone(), with_field(url, "mac", str::to_uppercase), None),
            ("no signature", method.clone(), url.split_once("&mac").unwrap().0.to_owned(), None),
            ("one field more", method, format!("{url}&x=1"), None),
        ];
        for (what, method, url, host) in altered {
            let answer = bare(api, method, &url, host, new.clone()).await;
            refused(&format!("34 {what}"), &answer, 403, "request.signature", &["signed", "mac"]);
        }
    }
    assert_eq!(listed(api).await, before);

    // Exactly the signed length: neither less as the whole, nor more.
    let long = [new.clone(), b"x".to_vec()].concat();
    let answer = bare(api, Method::PUT, &put_url, None, long).await;
    refused("35 a longer body", &answer, 422, "request.length_mismatch", &["7000"]);
    let piece = bare(api, Method::PUT, &put_url, None, new[..6_000].to_vec()).await;
    assert_eq!((piece.status.as_u16(), piece.at("/offset")), (202, &json!(6_000)), "{}", piece.text);
    let rest = bare(api, Method::PUT, &format!("{put_url}&offset=6000"), None, new[6_000..].to_vec()).await;
    assert_eq!(rest.status, 201, "{}", rest.text);
    let mut changed = new.clone();
    changed[6_999] ^= 1;
    let answer = bare(api, Method::PUT, &put_url, None, changed).await;
    refused("36 write-once", &answer, 422, "request.digest_mismatch", &["byte 6999", "never changes"]);
    let back = api.request(Method::GET, &blob(&coming)).send().await.unwrap();
    assert!(back.bytes().await.unwrap() == new);
    pool.stop().await;
}

#[tokio::test]
async fn a_signed_url_ends_and_says_when() {
    let pool = Pool::start(0).await;
    let api = &pool.api;
    let there = store(api, b"short-lived").await;
    let url = signed(api, &there, json!({"method": "GET", "seconds": 1})).await;
    let answer = forge_tests::until("end of the URL's time", || async {
        let answer = bare(api, Method::GET, &url, None, vec![]).await;
        (answer.status != StatusCode::OK).then_some(answer)
    })
    .await;
    refused("34 expired", &answer, 403, "request.url_expired", &["expired at 20", "it is 20"]);
    let later = with_field(&url, "expires", |text| (text.parse::<u64>().unwrap() + 600).to_string());
    refused("34 prolonged", &bare(api, Method::GET, &later, None, vec![]).await, 403, "request.signature", &[]);

    let ask = async |asked: &str| {
        let request = api.request(Method::POST, &format!("{}/urls", blob(&there)));
        api.send(request.header("content-type", "application/json").body(asked.to_owned())).await
    };
    for (asked, pointer, says) in [
        (r#"{"method": "GET", "seconds": 901}"#, "/seconds", &["seconds", "1 to 900", "901"][..]),
        (r#"{"method": "GET", "seconds": 0}"#, "/seconds", &["seconds", "found 0"]),
        (r#"{"method": "PUT", "seconds": 9}"#, "/bytes", &["bytes", "required"]),
        (r#"{"method": "GET", "seconds": 9, "bytes": 1}"#, "/bytes", &["bytes", "only with PUT"]),
    ] {
        let answer = ask(asked).await;
        refused(asked, &answer, 400, "request.schema", says);
        assert_eq!(answer.at("/pointer"), pointer, "{}", answer.text);
    }
    refused("method", &ask(r#"{"method": "DELETE", "seconds": 9}"#).await, 400, "request.schema", &["DELETE", "GET"]);
    refused("field", &ask(r#"{"methd": "GET", "seconds": 9}"#).await, 400, "request.schema", &["methd"]);
    refused("JSON", &ask(r#"{"method": "GET""#).await, 400, "request.malformed", &["line 1"]);
    let huge = ask(r#"{"method": "PUT", "seconds": 9, "bytes": 99999999999999}"#).await;
    refused("size", &huge, 413, "request.too_large", &["bytes", "8589934592"]);
    pool.stop().await;
}

#[tokio::test]
async fn what_is_not_as_declared_is_refused_and_changes_nothing() {
    let pool = Pool::start_with(1, &["--body-ms", "1500", "--blob-bytes", "1000000"]).await;
    let api = &pool.api;
    let contract = changed(insurance(2_000_000), &[("/policy/shards", json!(16))]);
    let undisturbed = digest(&api.execute(&contract).await.body);
    let stored = bytes(50_000, 4);
    let there = store(api, &stored).await;
    let before = listed(api).await;
    let running = api.submit(&contract).await;

    let content = bytes(100_000, 5);
    let (right, mut other) = (Digest::of(&content), content.clone());
    other[77_777] ^= 1;
    let answer = put(api, &right, 100_000, 0, other.clone()).await;
    let found = Digest::of(&other).to_string();
    refused(
        "35 digest",
        &answer,
        422,
        "request.digest_mismatch",
        &[&right.to_string(), &found, "nothing of it is kept"],
    );
    assert_eq!(api.get(&format!("/api/v0/uploads/{right}")).await.status, 404);
    let long = [content.clone(), b"x".to_vec()].concat();
    let answer = put(api, &right, 100_000, 0, long).await;
    refused("35 a longer body", &answer, 422, "request.length_mismatch", &["100000"]);
    let answer = put(api, &right, 1_000_001, 0, "x").await;
    refused("35 over the limit", &answer, 413, "request.too_large", &["bytes=1000001", "1000000"]);
    let answer = api.send(api.request(Method::PUT, &blob(&right)).body("x")).await;
    refused("35 no length", &answer, 400, "request.schema", &["bytes"]);
    let answer = api.send(api.request(Method::PUT, &format!("{}?bytes=-1", blob(&right))).body("x")).await;
    refused("35 a negative length", &answer, 400, "request.schema", &["bytes"]);

    // Fewer bytes than promised, then silence: it is given up in time, and what came is kept.
    let mut raw = Raw::open(api).await;
    let host = api.url.trim_start_matches("http://");
    let head = format!(
        "PUT {}?bytes=100000 HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-length: 100000\r\n\r\n",
        blob(&right),
        api.key
    );
    raw.send(head.as_bytes()).await;
    raw.send(&content[..1_000]).await;
    // Another writer that came first would keep the slow one out.
    let begun = format!("/api/v0/uploads/{right}");
    forge_tests::until("the slow writer to begin", || async { (api.get(&begun).await.status == 200).then_some(()) })
        .await;
    let busy = forge_tests::until("the slow writer's turn", || async {
        let answer = put(api, &right, 100_000, 1_000, content[1_000..2_000].to_vec()).await;
        (answer.at("/code") != "request.offset").then_some(answer)
    })
    .await;
    refused("one writer", &busy, 409, "request.in_progress", &[&right.to_string()]);
    let answer = raw.answer().await.expect("an answer to a slow body");
    refused("35 a short body", &answer, 408, "request.timeout", &["1000 bytes are there"]);
    upload_at(api, &right, 1_000).await;

    // What is stored never changes, whatever is sent under its name.
    for (what, body, size) in [
        ("other bytes", bytes(50_000, 6), 50_000),
        ("a longer body", [stored.clone(), b"x".to_vec()].concat(), 50_000),
        ("another length", stored[..40_000].to_vec(), 40_000),
    ] {
        let answer = put(api, &there, size, 0, body).await;
        refused(&format!("36 {what}"), &answer, 422, "request.digest_mismatch", &[&there.to_string(), "never changes"]);
    }
    let back = api.request(Method::GET, &blob(&there)).send().await.unwrap();
    assert!(back.bytes().await.unwrap() == stored);

    assert_eq!(listed(api).await, before);
    assert_eq!(digest(&api.finished(&running).await), undisturbed);
    let unknown = api.send(api.request(Method::GET, "/api/v0/blobs?limt=1")).await;
    refused("an unknown parameter", &unknown, 400, "request.schema", &["limt"]);
    pool.stop().await;
}
