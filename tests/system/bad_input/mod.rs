//! Bad requests 1-9, 13 and 14 of the security design, against the real server. (11 is in `idempotency`.)
//!
//! Each is answered with a status, a stable code, the place, and a sentence that helps; nothing changes, and a job
//! that runs meanwhile is not disturbed.

mod bodies;

use forge_tests::api::Answer;
use forge_tests::contract::{changed, insurance, quickstart, quickstart_text, without};
use forge_tests::pool::Pool;
use forge_tests::raw::{Raw, execute_head};
use serde_json::{Value, json};

use crate::answers::digest;

/// What a bad request must be answered with.
struct Expected {
    status: u16,
    code: &'static str,
    pointer: Option<&'static str>,
    says: &'static [&'static str],
}

const fn expected(status: u16, code: &'static str, pointer: &'static str, says: &'static [&'static str]) -> Expected {
    Expected { status, code, pointer: Some(pointer), says }
}

fn check(what: &str, answer: &Answer, expected: &Expected) {
    assert_eq!(answer.status, expected.status, "{what}: {}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
    assert_eq!(answer.at("/status"), &json!(expected.status), "{what}: {}", answer.text);
    assert_eq!(answer.at("/code"), expected.code, "{what}: {}", answer.text);
    assert_eq!(answer.at("/pointer").as_str(), expected.pointer, "{what}: {}", answer.text);
    let detail = answer.at("/detail").as_str().unwrap_or_else(|| panic!("{what}: no detail in {}", answer.text));
    for words in expected.says {
        assert!(detail.contains(words), "{what}: {words:?} is not in {detail:?}");
    }
    assert!(answer.at("/title").is_string() && answer.at("/type").is_string(), "{what}: {}", answer.text);
    assert!(answer.at("/trace_id").is_string(), "{what}: {}", answer.text);
}

/// The quickstart's text with one piece replaced.
fn text_with(from: &str, to: &str) -> String {
    let text = quickstart_text();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// Where the 65th level begins, below `deep` of the body.
fn deepest() -> &'static str {
    format!("/deep{}", "/0".repeat(64)).leak()
}

fn malformed() -> Vec<(&'static str, String, Expected)> {
    let text = quickstart_text();
    let deep =
        format!("{}\"deep\": {}{} }}", text.trim_end().trim_end_matches('}'), "[".repeat(10_000), "]".repeat(10_000));
    let deep = deep.replacen("\"deep\"", ", \"deep\"", 1);
    vec![
        (
            "1 truncated JSON",
            text[..text.len() / 2].to_owned(),
            expected(400, "request.malformed", "/policy", &["ends at line 18", "in the middle of a value"]),
        ),
        ("2 depth 10k", deep, expected(400, "request.malformed", deepest(), &["64 levels"])),
        (
            "3 duplicate keys",
            text_with("\"claim_freq\": 2.0,", "\"claim_freq\": 2.0, \"claim_freq\": 3.0,"),
            expected(400, "request.malformed", "/args/claim_freq", &["args.claim_freq", "twice"]),
        ),
        (
            "4 NaN",
            text_with("\"claim_freq\": 2.0", "\"claim_freq\": NaN"),
            expected(400, "request.malformed", "/args/claim_freq", &["NaN", "finite"]),
        ),
        (
            "4 1e999",
            text_with("\"claim_freq\": 2.0", "\"claim_freq\": 1e999"),
            expected(400, "request.malformed", "/args/claim_freq", &["args.claim_freq", "range"]),
        ),
    ]
}

fn refused_by_schema() -> Vec<(&'static str, Value, Expected)> {
    let set = |pointer: &str, value: Value| changed(quickstart(), &[(pointer, value)]);
    let over: u64 = 1 << 60;
    vec![
        (
            "4 negative iterations",
            set("/args/iterations", json!(-1)),
            expected(422, "request.arguments", "/args/iterations", &["iterations", "-1"]),
        ),
        (
            "5 more than a double holds exactly",
            set("/args/iterations", json!(over)),
            expected(422, "request.arguments", "/args/iterations", &["args.iterations", "exact"]),
        ),
        (
            "5 zero shards",
            set("/policy/shards", json!(0)),
            expected(400, "request.schema", "/policy/shards", &["policy.shards", "from 1 to 100000", "found 0"]),
        ),
        (
            "5 huge shards",
            set("/policy/shards", json!(100_001)),
            expected(400, "request.schema", "/policy/shards", &["from 1 to 100000", "found 100001"]),
        ),
        (
            "6 more agents at least than at most",
            set("/policy/min_agents", json!(11)),
            expected(422, "request.conflict", "/policy/min_agents", &["11", "policy.max_agents", "10"]),
        ),
        (
            "7 an unknown version",
            set("/op/version", json!(7)),
            expected(422, "request.unknown_op", "/op/version", &["mc@7", "mc@1"]),
        ),
        ("7 an unknown name", set("/op/name", json!("mcc")), expected(422, "request.unknown_op", "/op/name", &["mcc"])),
        (
            "7 an unknown profile",
            set("/op/profile", json!("insurance.v2")),
            expected(422, "request.unknown_op", "/op/profile", &["insurance.v2", "insurance.v1"]),
        ),
        (
            "8 a wrong spelling",
            set("/policy/verify", json!("FULL ")),
            expected(
                400,
                "request.schema",
                "/policy/verify",
                &["\"FULL \"", "none, spotcheck, quorum, full", "did you mean \"full\""],
            ),
        ),
        (
            "9 an explicit seed without value",
            without(quickstart(), "/seed/value"),
            expected(400, "request.schema", "/seed/value", &["explicit", "derived"]),
        ),
        (
            "9 an explicit seed with an empty value",
            set("/seed/value", json!("")),
            expected(400, "request.schema", "/seed/value", &["explicit", "empty"]),
        ),
        (
            "an unknown field",
            set("/policy/verfy", json!("none")),
            expected(400, "request.schema", "/policy/verfy", &["policy.verfy", "did you mean \"verify\""]),
        ),
        (
            "an unknown argument",
            set("/args/claim_frequency", json!(1)),
            Expected {
                status: 422,
                code: "request.arguments",
                pointer: Some("/args/claim_frequency"),
                says: &["claim_frequency"],
            },
        ),
        (
            "a missing argument",
            without(quickstart(), "/args/iterations"),
            expected(422, "request.arguments", "/args/iterations", &["iterations"]),
        ),
        (
            "a missing part",
            without(quickstart(), "/seed"),
            expected(400, "request.schema", "/seed", &["seed", "missing"]),
        ),
    ]
}

#[tokio::test]
async fn bad_bodies_get_a_clear_answer_and_disturb_nobody() {
    let pool = Pool::start(2).await;
    let contract = changed(insurance(3_000_000), &[("/policy/shards", json!(16))]);
    let undisturbed = digest(&pool.api.execute(&contract).await.body);
    let running = pool.api.submit(&contract).await;
    for (what, body, expected) in malformed() {
        check(what, &pool.api.execute_text(body).await, &expected);
    }
    for (what, body, expected) in refused_by_schema() {
        check(what, &pool.api.execute(&body).await, &expected);
    }
    assert_eq!(digest(&pool.api.finished(&running).await), undisturbed);
    pool.stop().await;
}

#[tokio::test]
async fn u64_overflow_in_the_text_is_named() {
    let pool = Pool::start(0).await;
    let body = text_with("\"iterations\": 1000000", "\"iterations\": 18446744073709551616");
    let answer = pool.api.execute_text(body).await;
    check("5 u64 overflow", &answer, &expected(422, "request.arguments", "/args/iterations", &["iterations"]));
    pool.stop().await;
}

#[tokio::test]
async fn another_projects_job_does_not_exist() {
    let pool = Pool::start_with(1, &["--announce-project", "second"]).await;
    let job = pool.api.execute(&insurance(100_000)).await.job();
    let mut stranger = pool.api.clone();
    stranger.key = pool.ready["project_keys"]["second"].as_str().expect("the second project has a key").to_owned();
    assert_ne!(stranger.key, pool.api.key);
    assert_eq!(stranger.get("/api/v0/jobs").await.body["items"], json!([]));
    for path in ["", "/executions", "/artifacts", "/events"] {
        let answer = stranger.get(&format!("/api/v0/jobs/{job}{path}")).await;
        check(
            path,
            &answer,
            &Expected { status: 404, code: "request.not_found", pointer: None, says: &["no such job"] },
        );
    }
    let answer = stranger.cancel(&job).await;
    check(
        "cancel",
        &answer,
        &Expected { status: 404, code: "request.not_found", pointer: None, says: &["no such job"] },
    );
    let missing = pool.api.get("/api/v0/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV").await;
    assert_eq!(missing.status, 404, "{}", missing.text);
    pool.stop().await;
}

#[tokio::test]
async fn bodies_that_lie_about_their_size_end_in_time() {
    let pool = Pool::start_with(1, &["--body-ms", "1500"]).await;
    let text = quickstart_text();
    let length = text.len().to_string();
    let json_type = ("content-type", "application/json");

    // Fewer bytes than promised, then silence: the connection stays open, the server must not wait for ever.
    let mut raw = Raw::open(&pool.api).await;
    let longer = (text.len() + 100).to_string();
    raw.send(execute_head(&pool.api, &[json_type, ("content-length", &longer)]).as_bytes()).await;
    raw.send(text.as_bytes()).await;
    let answer = raw.answer().await.expect("an answer to a body that does not come");
    check("14 slow body", &answer, &Expected { status: 408, code: "request.timeout", pointer: None, says: &["body"] });

    // Fewer bytes than promised, then the end.
    let mut raw = Raw::open(&pool.api).await;
    raw.send(execute_head(&pool.api, &[json_type, ("content-length", &longer)]).as_bytes()).await;
    raw.send(text.as_bytes()).await;
    raw.finish().await;
    if let Some(answer) = raw.answer().await {
        assert!(answer.status.is_client_error(), "{} {}", answer.status, answer.text);
    }

    // More bytes than promised: what is promised is read, and it is no JSON.
    let mut raw = Raw::open(&pool.api).await;
    raw.send(execute_head(&pool.api, &[json_type, ("content-length", "40"), ("connection", "close")]).as_bytes()).await;
    raw.send(text.as_bytes()).await;
    let answer = raw.answer().await.expect("an answer to a body that is too long");
    check("14 wrong length", &answer, &expected(400, "request.malformed", "/ctx/job_id", &["ends"]));

    // A length over the limit is refused before a byte of it is read.
    let mut raw = Raw::open(&pool.api).await;
    raw.send(execute_head(&pool.api, &[json_type, ("content-length", "99999999999")]).as_bytes()).await;
    let answer = raw.answer().await.expect("an answer to an announced flood");
    check("14 flood", &answer, &Expected { status: 413, code: "request.too_large", pointer: None, says: &["1048576"] });

    let good = pool.api.execute_text(text.clone()).await;
    assert_eq!(good.status, 200, "{length} bytes as promised: {}", good.text);
    pool.stop().await;
}

#[tokio::test]
async fn a_compressed_bomb_stays_small() {
    let pool = Pool::start(1).await;
    let send = |bytes: Vec<u8>, encoding: &'static str| {
        let request = pool.api.request(reqwest::Method::POST, "/api/v0/ops/execute");
        let request = request.header("content-type", "application/json").header("content-encoding", encoding);
        pool.api.send(request.body(bytes))
    };
    let answer = send(zeros(64 << 20), "gzip").await;
    check("14 bomb", &answer, &Expected { status: 413, code: "request.too_large", pointer: None, says: &["1048576"] });
    let answer = send(quickstart_text().into_bytes(), "lzma").await;
    check(
        "unknown encoding",
        &answer,
        &Expected { status: 415, code: "request.media_type", pointer: None, says: &["gzip"] },
    );
    let request = pool.api.request(reqwest::Method::POST, "/api/v0/ops/execute").header("content-type", "text/plain");
    let answer = pool.api.send(request.body(quickstart_text())).await;
    check(
        "wrong type",
        &answer,
        &Expected { status: 415, code: "request.media_type", pointer: None, says: &["application/json"] },
    );
    pool.stop().await;
}

/// A gzip stream of `count` blanks made of stored-length repeats: small, and without a compressor here.
///
/// One fixed-Huffman block: a literal blank, then matches of length 258 at distance 1. Source: RFC 1951, 1952.
fn zeros(count: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(1, 1);
    bits.push(1, 2);
    bits.push(reversed(0x30 + u32::from(b' '), 8), 8);
    for _ in 0..count / 258 {
        // Length 258 is code 285: 8 bits, 0b11000101. Distance 1 is code 0: 5 bits.
        bits.push(reversed(0b1100_0101, 8), 8);
        bits.push(0, 5);
    }
    bits.push(0, 7);
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    gzip.extend(bits.finish());
    // The checksum is never reached by a reader that stops at its limit.
    gzip.extend([0_u8; 4]);
    gzip.extend(u32::try_from(count).unwrap().to_le_bytes());
    gzip
}

fn reversed(code: u32, width: u32) -> u32 {
    code.reverse_bits() >> (32 - width)
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    filled: u32,
}

impl Bits {
    fn push(&mut self, value: u32, width: u32) {
        for at in 0..width {
            if self.filled.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().unwrap();
            *last |= u8::from(value >> at & 1 == 1) << (self.filled % 8);
            self.filled += 1;
        }
    }

    fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
