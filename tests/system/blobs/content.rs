//! Content goes in, stays, and comes out in pieces; the hub's memory does not grow with it.

use forge_contract::Digest;
use forge_tests::pool::Pool;
use forge_tests::raw::Raw;
use reqwest::Method;
use serde_json::json;

use super::{blob, bytes, listed, memory_kib, put, refused, store, upload_at};

#[tokio::test]
async fn content_comes_back_whole_and_in_ranges() {
    let mut pool = Pool::start(0).await;
    let content = bytes(300_000, 1);
    let digest = Digest::of(&content);
    let api = pool.api.clone();
    let api = &api;
    let first = put(api, &digest, content.len(), 0, content.clone()).await;
    assert_eq!((first.status.as_u16(), first.at("/bytes")), (201, &json!(300_000)), "{}", first.text);
    assert_eq!(first.headers["location"], blob(&digest));
    let again = put(api, &digest, content.len(), 0, content.clone()).await;
    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body), "{}", again.text);

    let get = |range: &'static str| {
        let request = api.request(Method::GET, &blob(&digest)).header("range", range);
        async { request.send().await.unwrap() }
    };
    let whole = api.request(Method::GET, &blob(&digest)).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["etag"], format!("\"{digest}\""));
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert!(whole.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(whole.bytes().await.unwrap() == content);
    for (range, expected) in [
        ("bytes=0-9", 0..10),
        ("bytes=299990-", 299_990..300_000),
        ("bytes=-7", 299_993..300_000),
        ("bytes=150000-999999999", 150_000..300_000),
    ] {
        let part = get(range).await;
        assert_eq!(part.status(), 206, "{range}");
        let said = format!("bytes {}-{}/300000", expected.start, expected.end - 1);
        assert_eq!(part.headers()["content-range"], said, "{range}");
        assert!(part.bytes().await.unwrap() == content[expected], "{range}");
    }
    let beyond = api.send(api.request(Method::GET, &blob(&digest)).header("range", "bytes=300000-")).await;
    refused("a range after the end", &beyond, 416, "request.range", &["Range", "300000"]);
    assert_eq!(beyond.headers["content-range"], "bytes */300000");
    let head = api.request(Method::HEAD, &blob(&digest)).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "300000"));
    assert!(head.bytes().await.unwrap().is_empty());
    let known = api.request(Method::GET, &blob(&digest)).header("if-none-match", format!("\"{digest}\""));
    assert_eq!(api.send(known).await.status, 304);

    let second = store(api, b"second").await;
    let newest = api.get("/api/v0/blobs?limit=1").await;
    assert_eq!(newest.at("/items/0/digest"), &json!(second.to_string()), "{}", newest.text);
    let next = api.get(newest.at("/next").as_str().unwrap()).await;
    assert_eq!(next.at("/items/0/digest"), &json!(digest.to_string()), "{}", next.text);

    pool.kill_hub().await;
    pool.restart_hub().await;
    assert_eq!(listed(&pool.api).await.len(), 2);
    let request = pool.api.request(Method::GET, &blob(&digest)).header("range", "bytes=0-9");
    assert!(request.send().await.unwrap().bytes().await.unwrap() == content[..10]);
    pool.stop().await;
}

/// Sends the head of a `PUT` and some of its body, and then breaks the connection.
async fn cut(pool: &Pool, digest: &Digest, content: &[u8], until: usize) {
    let mut raw = Raw::open(&pool.api).await;
    let host = pool.api.url.trim_start_matches("http://");
    let head = format!(
        "PUT {}?bytes={size} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-length: {size}\r\n\r\n",
        blob(digest),
        pool.api.key,
        size = content.len()
    );
    raw.send(head.as_bytes()).await;
    raw.send(&content[..until]).await;
}

#[tokio::test]
async fn an_upload_cut_at_99_percent_goes_on_also_after_a_crash_of_the_hub() {
    let mut pool = Pool::start(0).await;
    for (seed, crash) in [(2, false), (3, true)] {
        let content = bytes(5_000_000, seed);
        let digest = Digest::of(&content);
        let there = content.len() / 100 * 99;
        cut(&pool, &digest, &content, there).await;
        let state = upload_at(&pool.api, &digest, there).await;
        assert_eq!(state, json!({"digest": digest.to_string(), "bytes": content.len(), "offset": there}));
        assert_eq!(pool.api.get(&blob(&digest)).await.status, 404);
        assert!(!listed(&pool.api).await.iter().any(|(listed, _)| *listed == digest.to_string()));
        if crash {
            pool.kill_hub().await;
            pool.restart_hub().await;
        }
        let wrong = put(&pool.api, &digest, content.len(), there - 1, content[there - 1..].to_vec()).await;
        refused("25 a wrong offset", &wrong, 409, "request.offset", &["offset=", &there.to_string()]);
        assert_eq!(wrong.headers["upload-offset"], there.to_string());
        let rest = put(&pool.api, &digest, content.len(), there, content[there..].to_vec()).await;
        assert_eq!(rest.status, 201, "{}", rest.text);
        assert_eq!(pool.api.get(&format!("/api/v0/uploads/{digest}")).await.status, 404);
        let back = pool.api.request(Method::GET, &blob(&digest)).send().await.unwrap();
        assert!(back.bytes().await.unwrap() == content);
    }
    pool.stop().await;
}

/// Who may not send any more has sent nothing: neither content, nor an array, nor a kernel, nor a value.
#[tokio::test]
async fn what_comes_while_its_key_is_revoked_is_not_taken() {
    let pool = Pool::start(0).await;
    let content = bytes(300_000, 9);
    let digest = Digest::of(&content);
    for (what, path, kind, gone) in [
        ("blob", format!("PUT {}?bytes=300000", blob(&digest)), "application/octet-stream", blob(&digest)),
        ("array", "POST /api/v0/vmem/late".to_owned(), "application/x-npy", "/api/v0/vmem/late".to_owned()),
        (
            "kernel",
            format!("POST /api/v0/kernels?digest={digest}&bytes=300000"),
            "application/wasm",
            format!("/api/v0/components/{digest}"),
        ),
        ("value", "PUT /api/v0/kv/n/late".to_owned(), "text/plain", "/api/v0/kv/n/late".to_owned()),
    ] {
        let (key, id) = pool.api.new_key(&json!({ "scopes": ["compute"] })).await;
        let api = pool.api.with_key(&key);
        let mut raw = Raw::open(&api).await;
        let head = format!(
            "{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n\
             content-length: 300000\r\nexpect: 100-continue\r\n\r\n"
        );
        raw.send(head.as_bytes()).await;
        // The hub asks for the body once the key was found good.
        assert_eq!(raw.answer().await.unwrap().status, 100, "{what}");
        raw.send(&content[..200_000]).await;
        let revoked = pool.api.send(pool.api.request(Method::DELETE, &format!("/api/v0/keys/{id}"))).await;
        assert_eq!(revoked.status, 200, "{}", revoked.text);
        raw.send(&content[200_000..]).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("no answer about the {what}"));
        refused(what, &answer, 401, "request.unauthenticated", &["revoked", "nothing of it is kept"]);
        assert_eq!(pool.api.get(&gone).await.status, 404, "{what}");
        assert_eq!(pool.api.get(&format!("/api/v0/uploads/{digest}")).await.status, 404, "{what}");
    }
    assert!(listed(&pool.api).await.is_empty());
    pool.stop().await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_a_piece() {
    let pool = Pool::start(0).await;
    let content = bytes(10_000, 4);
    let digest = Digest::of(&content);
    for (from, to) in [(0, 3_000), (3_000, 9_999)] {
        let piece = put(&pool.api, &digest, content.len(), from, content[from..to].to_vec()).await;
        assert_eq!((piece.status.as_u16(), piece.at("/offset")), (202, &json!(to)), "{}", piece.text);
    }
    let last = put(&pool.api, &digest, content.len(), 9_999, content[9_999..].to_vec()).await;
    assert_eq!(last.status, 201, "{}", last.text);
    pool.stop().await;
}

#[tokio::test]
async fn content_of_one_project_is_not_anothers_until_it_sends_it() {
    let pool = Pool::start_with(0, &["--announce-project", "second"]).await;
    let mut stranger = pool.api.clone();
    stranger.key = pool.ready["project_keys"]["second"].as_str().unwrap().to_owned();
    let content = bytes(100_000, 5);
    let digest = store(&pool.api, &content).await;
    refused("read", &stranger.get(&blob(&digest)).await, 404, "request.not_found", &["no such blob"]);
    assert_eq!(stranger.request(Method::HEAD, &blob(&digest)).send().await.unwrap().status(), 404);
    let url = stranger.request(Method::POST, &format!("{}/urls", blob(&digest)));
    let url = stranger.send(url.json(&json!({"method": "GET", "seconds": 60}))).await;
    refused("sign", &url, 404, "request.not_found", &["no such blob"]);
    assert!(listed(&stranger).await.is_empty());
    // A digest alone proves nothing: a body that is not the content grants nothing.
    let claim = put(&stranger, &digest, content.len(), 0, vec![0; content.len()]).await;
    refused("claim", &claim, 422, "request.digest_mismatch", &[&digest.to_string()]);
    assert_eq!(stranger.get(&blob(&digest)).await.status, 404);
    let piece = put(&stranger, &digest, content.len(), 0, content[..50_000].to_vec()).await;
    assert_eq!(piece.status, 202, "{}", piece.text);
    assert_eq!(pool.api.get(&format!("/api/v0/uploads/{digest}")).await.status, 404, "an upload is its project's");
    let rest = put(&stranger, &digest, content.len(), 50_000, content[50_000..].to_vec()).await;
    assert_eq!(rest.status, 201, "{}", rest.text);
    assert_eq!(listed(&stranger).await, listed(&pool.api).await);
    pool.stop().await;
}

/// What 200 MB may add to the hub's memory, KiB.
const GROWTH_KIB_MAX: u64 = 40 << 10;

#[tokio::test]
async fn two_hundred_megabytes_do_not_grow_the_hub() {
    let pool = Pool::start(0).await;
    let hub = pool.hub.id();
    let content = bytes(200_000_000, 6);
    // From here on the peak is counted anew, where the system allows that.
    std::fs::write(format!("/proc/{hub}/clear_refs"), "5").ok();
    let before = memory_kib(hub, "VmRSS:");
    let digest = store(&pool.api, &content).await;
    let mut back = pool.api.request(Method::GET, &blob(&digest)).send().await.unwrap();
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = back.chunk().await.unwrap() {
        hasher.update(&piece);
    }
    assert_eq!(hasher.finalize(), *digest.as_bytes());
    let again = put(&pool.api, &digest, content.len(), 0, content).await;
    assert_eq!(again.status, 200, "{}", again.text);
    let grown = memory_kib(hub, "VmHWM:").saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "the hub grew by {grown} KiB");
    pool.stop().await;
}
