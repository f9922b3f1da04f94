//! One trace id from a client's request through the hub, its job and its shards to the agent's sandbox and back: in the
//! spans that a collector gets, and in both processes' logs.

use std::collections::BTreeMap;

use forge_tests::collector::{Collector, Sent};
use forge_tests::contract::{changed, insurance, without};
use forge_tests::pool::Pool;
use forge_tests::until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::answers::digest;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const SHARDS: usize = 4;

#[tokio::test]
async fn one_trace_goes_through_hub_and_agent_and_back() {
    let collector = Collector::start().await;
    let otlp = ["--otlp", collector.url(), "--log-format", "json"];
    let mut pool = Pool::start_logging(0, &otlp, "info,forge_hub=debug,forge_agent=debug").await;
    let quic = pool.quic();
    pool.join_at(&quic, &otlp).await;

    let shards = [("/policy/shards", json!(SHARDS)), ("/policy/verify", json!("none"))];
    let contract = without(changed(insurance(1_000_000), &shards), "/ctx/trace_id");
    let request = pool.api.request(Method::POST, "/api/v0/ops/execute").header("content-type", "application/json");
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).body(contract.to_string());
    let answer = pool.api.send(request).await;
    digest(&answer.body);
    let job = answer.job();
    let back = answer.headers["traceparent"].to_str().unwrap().to_owned();
    assert!(back.starts_with(&format!("00-{TRACE}-")) && back.ends_with("-01"), "{back}");
    assert_eq!(answer.headers["x-trace-id"], TRACE);

    // Each side sends within a moment; the parts of a shard come after it was reported.
    let all = until("every span", || async {
        let spans: Vec<Sent> = collector.spans().into_iter().filter(|span| span.trace == TRACE).collect();
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        let whole = count("execute shard") >= SHARDS && count("shard") >= SHARDS && count("job mc@1") == 1;
        (whole && count("POST /api/v0/ops/execute") == 1).then_some(spans)
    })
    .await;
    let by_id: BTreeMap<&str, &Sent> = all.iter().map(|span| (span.id.as_str(), span)).collect();
    let parent =
        |span: &Sent| by_id.get(span.parent.as_str()).copied().unwrap_or_else(|| panic!("no parent of {span:?}"));
    let named = |name: &str| all.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let request = named("POST /api/v0/ops/execute")[0];
    assert_eq!((request.parent.as_str(), request.service.as_str()), (PARENT, "forgepool-hub"));
    assert_eq!(back, format!("00-{TRACE}-{}-01", request.id));
    let of_job = named("job mc@1")[0];
    assert_eq!((&of_job.parent, of_job.attributes["forgepool.job"].as_str()), (&request.id, job.as_str()));
    assert_eq!(named("execute shard").len(), SHARDS);
    for run in named("execute shard") {
        assert_eq!(run.service, "forgepool-agent");
        let given = parent(run);
        assert_eq!((given.name.as_str(), given.service.as_str()), ("shard", "forgepool-hub"));
        assert_eq!(parent(given).id, of_job.id);
        for name in ["forgepool.job", "forgepool.stage", "forgepool.shard", "forgepool.agent"] {
            assert_eq!(given.attributes[name], run.attributes[name], "{name}");
        }
        let parts: Vec<&str> = all.iter().filter(|part| part.parent == run.id).map(|part| part.name.as_str()).collect();
        assert!(parts.contains(&"prepare") && parts.contains(&"run in the sandbox"), "{parts:?}");
        assert!(run.from <= run.until && given.from <= given.until);
    }

    // The same id in the lines of both.
    let hub = lines(&pool.hub.log(), TRACE);
    let machine = lines(&pool.agent(0).log(), TRACE);
    let said = |lines: &[Value], message: &str| {
        lines.iter().find(|line| line["message"] == message).cloned().unwrap_or_else(|| panic!("no '{message}'"))
    };
    for (line, fields) in [
        (said(&hub, "job accepted"), &["job", "trace_id", "project"][..]),
        (said(&hub, "dispatch"), &["job", "trace_id", "stage", "shard", "lease", "agent"]),
        (said(&hub, "attempt ended"), &["job", "trace_id", "stage", "shard", "lease", "agent"]),
        (said(&hub, "job ended"), &["job", "trace_id", "status"]),
        (said(&machine, "shard ended"), &["job", "trace_id", "stage", "shard", "lease", "agent"]),
    ] {
        for field in fields {
            // A span's fields stand under it.
            let found = if line[field].is_null() { &line["span"][field] } else { &line[field] };
            assert!(!found.is_null(), "{field} is not in {line}");
        }
        let found = if line["job"].is_null() { &line["span"]["job"] } else { &line["job"] };
        assert_eq!(found, job.as_str(), "{line}");
    }
    pool.stop().await;
}

/// The JSON lines of a log that name a trace.
fn lines(log: &str, trace: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.contains(trace));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    // A port where nobody listens.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let pool = Pool::start_with(1, &["--otlp", &url]).await;
    for _ in 0..5 {
        digest(&pool.api.execute(&insurance(100_000)).await.body);
    }
    pool.stop().await;
}
