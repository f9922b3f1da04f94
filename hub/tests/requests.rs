//! What no client should send, and what every error looks like.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::{Answer, Hub, Script, answer, contract};

fn hub(more: &[&str]) -> (tempfile::TempDir, Hub) {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), more);
    (folder, hub)
}

/// Every problem has this shape.
fn problem(given: &Answer, status: u16, code: &str) {
    let body = &given.body;
    assert_eq!((given.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(given.header("content-type"), "application/problem+json");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:forgepool:problem:{code}"));
    for field in ["title", "detail", "trace_id", "fix"] {
        assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {body}");
    }
    assert_eq!(given.header("x-trace-id"), body["trace_id"].as_str().unwrap());
}

#[tokio::test]
async fn every_way_to_miss_is_a_problem() {
    let (_folder, hub) = hub(&[]);
    problem(&answer(hub.get("/nowhere")).await, 404, "request.not_found");
    problem(&answer(hub.get("/api/v0/jobs/nonsense")).await, 404, "request.not_found");
    problem(&answer(hub.get("/api/v0/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV")).await, 404, "request.not_found");
    problem(&answer(hub.get("/api/v0/jobs/%FF")).await, 400, "request.schema");
    let wrong = answer(hub.get("/api/v0/ops/execute")).await;
    problem(&wrong, 405, "request.method");
    assert_eq!(wrong.header("allow"), "POST");
    problem(&answer(hub.http.delete(hub.url("/api/v0/jobs")).bearer_auth(&hub.key)).await, 405, "request.method");
    for request in [
        hub.http.get(hub.url("/api/v0/jobs")),
        hub.http.get(hub.url("/api/v0/jobs")).bearer_auth("fpk_wrong"),
        hub.http.get(hub.url("/api/v0/jobs")).basic_auth("a", Some("b")),
        hub.http.get(hub.url("/api/v0/jobs")).header("authorization", &b"Bearer \xff\xfe"[..]),
    ] {
        let given = answer(request).await;
        problem(&given, 401, "request.unauthenticated");
        assert!(given.header("www-authenticate").starts_with("Bearer"));
    }
    let other = hub.http.get(hub.url("/api/v0/jobs")).header("x-forge-api-key", &hub.key);
    assert_eq!(answer(other).await.status, 200);
    let long = hub.execute(&contract(1)).header("idempotency-key", "k".repeat(300));
    problem(&answer(long).await, 400, "request.schema");
}

#[tokio::test]
async fn a_refused_contract_is_kept_as_a_failed_job() {
    let (_folder, hub) = hub(&[]);
    let send = |body: &str| {
        hub.post("/api/v0/ops/execute")
            .header("content-type", "application/json")
            .header("x-trace-id", "t-7")
            .body(body.to_owned())
    };
    let with = |change: fn(&mut Value)| {
        let mut value = contract(10);
        change(&mut value);
        value.to_string()
    };
    let text = contract(10).to_string();
    let cases: [(String, &str, Option<&str>); 11] = [
        (text[..text.len() - 5].to_owned(), "request.malformed", None),
        (format!("{{\"args\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)), "request.malformed", None),
        (text.replacen("\"units\":10", "\"units\":10,\"units\":10", 1), "request.malformed", Some("/args/units")),
        (text.replace("\"units\":10", "\"units\":NaN"), "request.malformed", Some("/args/units")),
        (text.replace("\"units\":10", "\"units\":1e999"), "request.malformed", Some("/args/units")),
        (with(|v| v["args"]["units"] = json!(-1)), "request.arguments", Some("/args/units")),
        (with(|v| v["policy"]["shards"] = json!(0)), "request.schema", Some("/policy/shards")),
        (with(|v| v["policy"]["min_agents"] = json!(9)), "request.conflict", Some("/policy/min_agents")),
        (with(|v| v["op"]["version"] = json!(7)), "request.unknown_op", Some("/op/version")),
        (with(|v| v["policy"]["verify"] = json!("FULL ")), "request.schema", Some("/policy/verify")),
        (with(|v| drop(v["seed"].as_object_mut().unwrap().remove("value"))), "request.schema", Some("/seed/value")),
    ];
    for (body, code, pointer) in &cases {
        let given = answer(send(body)).await;
        let fits = ["request.arguments", "request.conflict", "request.unknown_op"].contains(code);
        problem(&given, if fits { 422 } else { 400 }, code);
        if pointer.is_some() {
            assert_eq!(given.body["pointer"].as_str(), *pointer, "{}", given.body);
        }
        let job = given.body["job_id"].as_str().unwrap();
        let kept = answer(hub.get(&format!("/api/v0/jobs/{job}"))).await;
        assert_eq!((kept.status, kept.body["status"].as_str()), (200, Some("FAILED")), "{}", kept.body);
        assert_eq!(kept.body["error"]["code"], *code);
        assert_eq!(kept.body["error"]["pointer"], given.body["pointer"]);
        assert_eq!(kept.body["trace_id"], given.body["trace_id"]);
    }
    let listed = answer(hub.get("/api/v0/jobs?status=FAILED&limit=100")).await.body;
    assert_eq!(listed["items"].as_array().unwrap().len(), cases.len());
}

#[tokio::test]
async fn bodies_are_bounded_in_type_size_and_unpacked_size() {
    let (_folder, hub) = hub(&[]);
    let _agent = hub.agent(Script::default()).await;
    let post = || hub.post("/api/v0/ops/execute");
    problem(&answer(post().body("{}")).await, 415, "request.media_type");
    problem(&answer(post().header("content-type", "text/plain").body("{}")).await, 415, "request.media_type");
    let json = || post().header("content-type", "application/json");
    problem(&answer(json().header("content-encoding", "br").body("x")).await, 415, "request.media_type");
    problem(&answer(json().body(vec![b' '; (1 << 20) + 1])).await, 413, "request.too_large");
    let packed = |bytes: &[u8]| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let bomb = packed(&vec![0; 256 << 20]);
    assert!(bomb.len() < 1 << 20);
    problem(&answer(json().header("content-encoding", "gzip").body(bomb)).await, 413, "request.too_large");
    problem(&answer(json().header("content-encoding", "gzip").body("not gzip")).await, 400, "request.malformed");
    let honest = packed(contract(10).to_string().as_bytes());
    assert_eq!(answer(json().header("content-encoding", "gzip").body(honest)).await.status, 200);
}

/// Sends bytes as they are; what comes back until the server closes.
fn raw(hub: &Hub, parts: &[&[u8]], half_close: bool) -> String {
    let mut stream = TcpStream::connect(hub.ready["http"].as_str().unwrap()).unwrap();
    for part in parts {
        stream.write_all(part).unwrap();
    }
    if half_close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut text = Vec::new();
    // The server may reset after its answer; what came before counts.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn head(hub: &Hub, length: usize) -> String {
    format!(
        "POST /api/v0/ops/execute HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n",
        hub.key
    )
}

#[tokio::test]
async fn lengths_that_lie_and_bodies_that_dawdle_end() {
    let (_folder, hub) = hub(&["--body-ms", "300"]);
    let _agent = hub.agent(Script::default()).await;
    let body = contract(10).to_string();
    let hub = std::sync::Arc::new(hub);
    let run = async |length: usize, sent: usize, half_close: bool| {
        let (hub, body) = (hub.clone(), body.clone());
        tokio::task::spawn_blocking(move || {
            raw(&hub, &[head(&hub, length).as_bytes(), &body.as_bytes()[..sent]], half_close)
        })
        .await
        .unwrap()
    };
    let whole = body.len();
    let slow = run(whole, whole - 1, false).await;
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("request.timeout"), "{slow}");
    let short = run(whole, whole - 1, true).await;
    assert!(short.starts_with("HTTP/1.1 408 ") && short.contains("request.timeout"), "{short}");
    let cut = run(whole - 5, whole, false).await;
    assert!(cut.starts_with("HTTP/1.1 400 ") && cut.contains("request.malformed"), "{cut}");
    let huge = run(99_999_999_999, 0, false).await;
    assert!(huge.starts_with("HTTP/1.1 413 ") && huge.contains("request.too_large"), "{huge}");
    let good = run(whole, whole, false).await;
    assert!(good.starts_with("HTTP/1.1 200 "), "{good}");
}

#[tokio::test]
async fn the_interface_is_described_and_counted() {
    let (_folder, hub) = hub(&[]);
    let _agent = hub.agent(Script::default()).await;
    assert_eq!(answer(hub.execute(&contract(10))).await.status, 200);
    let described = answer(hub.http.get(hub.url("/api/v0/openapi.json"))).await.body;
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, method) in [
        ("/api/v0/ops/execute", "post"),
        ("/api/v0/ops/plan", "post"),
        ("/api/v0/jobs", "get"),
        ("/api/v0/jobs/{id}", "get"),
        ("/api/v0/jobs/{id}/executions", "get"),
        ("/api/v0/jobs/{id}/artifacts", "get"),
        ("/api/v0/jobs/{id}/artifacts/{name}", "get"),
        ("/api/v0/jobs/{id}/events", "get"),
        ("/api/v0/jobs/{id}/cancel", "post"),
        ("/api/v0/kernels", "get"),
        ("/api/v0/agents", "get"),
        ("/api/v0/agents/tokens", "post"),
    ] {
        let operation = &described["paths"][path][method];
        assert!(operation["summary"].is_string() && operation["responses"]["401"].is_object(), "{method} {path}");
    }
    for name in ["JobDocument", "ProblemBody", "Execution", "MetricsBlock", "BillingBlock"] {
        assert!(described["components"]["schemas"][name].is_object(), "{name}");
    }
    let index = answer(hub.http.get(hub.url("/"))).await.body;
    assert!(index["routes"].as_array().unwrap().len() >= 15);
    let metrics = answer(hub.http.get(hub.url("/metrics"))).await;
    let text = String::from_utf8(metrics.bytes).unwrap();
    for line in [
        "forgepool_jobs_ended_total{kind=\"COMPLETED\"} 1",
        "forgepool_units_accepted_total 10",
        "forgepool_fuel_accepted_total 12340",
        "forgepool_agents_connected 1",
        "forgepool_http_request_seconds_count{route=\"/api/v0/ops/execute\",method=\"POST\",status=\"200\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(answer(hub.http.get(hub.url("/healthz"))).await.status, 200);
    assert_eq!(answer(hub.http.get(hub.url("/readyz"))).await.status, 200);
    let kernels = answer(hub.get("/api/v0/kernels")).await.body;
    let names: Vec<&str> = kernels["items"].as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gemm", "mc", "noop"]);
}
