//! The audit log of a real hub: one row for every change, whatever came of it, and an export that holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use forge_contract::Digest;
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::trail::text::check;
use forge_lifecycle::trail::verify::{Fault, Findings};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::{Answer, Hub, Script, answer, contract};

async fn rows(hub: &Hub, query: &str) -> Vec<Value> {
    let answer = answer(hub.get(&format!("/api/v0/audit?limit=1000{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["items"].as_array().unwrap().clone()
}

/// What a request leaves in the log, its own rows only.
async fn left_by(hub: &Hub, request: RequestBuilder) -> (Answer, Vec<Value>) {
    let last = rows(hub, "").await.first().map_or(0, |row| row["seq"].as_u64().unwrap());
    let answer = answer(request).await;
    let new = rows(hub, "").await.into_iter().filter(|row| row["seq"].as_u64().unwrap() > last).collect();
    (answer, new)
}

fn is_signed(key: &Key, message: &[u8], signature: &Signature) -> bool {
    forge_protocol::identity::verify(&key.0, message, &signature.0)
}

async fn export(hub: &Hub, query: &str) -> String {
    let answer = answer(hub.get(&format!("/api/v0/audit/export{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    String::from_utf8(answer.bytes).unwrap()
}

async fn checked(hub: &Hub, export: &str) -> Findings {
    let key: Key = hub.ready["hub_key"].as_str().unwrap().parse().unwrap();
    check(export, Some(key), None, &is_signed)
}

#[tokio::test]
async fn every_change_leaves_one_row_whatever_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let first = rows(&hub, "").await;
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!((first[0]["key"].as_str(), first[0]["project"].as_str()), (Some("operator"), Some("default")));

    let agent = hub.agent(Script::default()).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let body = contract(3).to_string();
    let sent = |path: &str, body: String| {
        let request = hub.post(path).header("content-type", "application/json").header("traceparent", parent.clone());
        request.body(body)
    };
    let one = |rows: &[Value]| {
        assert_eq!(rows.len(), 1, "{rows:#?}");
        rows[0].clone()
    };
    // A job, waited for: the row is its acceptance's.
    let (done, left) = left_by(&hub, sent("/api/v0/ops/execute", body.clone())).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let row = one(&left);
    assert_eq!(row["action"], "POST /api/v0/ops/execute");
    assert_eq!((row["status"].as_u64(), row["code"].as_str()), (Some(202), Some("")));
    assert_eq!(row["note"], format!("job {}", done.body["job_id"].as_str().unwrap()));
    assert_eq!(row["body"], Digest::of(body.as_bytes()).to_string());
    assert_eq!((row["peer"].as_str(), row["organisation"].as_str()), (Some("127.0.0.1"), Some("default")));
    assert!(row["key"].as_str().unwrap().starts_with("key_"), "{row}");
    assert_eq!((row["trace_id"].as_str(), row["project"].as_str()), (Some(trace), Some("default")));
    // Refused before and after it was recorded, asked again by its idempotency key, and with another body.
    let (bad, left) = left_by(&hub, sent("/api/v0/ops/execute", "{}".into())).await;
    assert_eq!(bad.status, 400);
    let row = one(&left);
    assert_eq!((row["status"].as_u64(), row["code"].as_str()), (Some(400), bad.body["code"].as_str()));
    assert_eq!(row["note"], format!("job {}", bad.body["job_id"].as_str().unwrap()));
    let (_, left) = left_by(&hub, sent("/api/v0/ops/execute", body.clone()).header("idempotency-key", "k")).await;
    assert_eq!(one(&left)["status"], 202);
    let (again, left) = left_by(&hub, sent("/api/v0/ops/execute", body.clone()).header("idempotency-key", "k")).await;
    assert_eq!((again.status, one(&left)["status"].as_u64()), (200, Some(200)));
    let other = contract(4).to_string();
    let (_, left) = left_by(&hub, sent("/api/v0/ops/execute", other).header("idempotency-key", "k")).await;
    let row = one(&left);
    assert_eq!((row["status"].as_u64(), row["code"].as_str()), (Some(409), Some("request.idempotency_mismatch")));
    // Everything else.
    let job = done.body["job_id"].as_str().unwrap();
    let digest = Digest::of(b"hello");
    for (request, action, status) in [
        (hub.post(&format!("/api/v0/jobs/{job}/cancel")), "POST /api/v0/jobs/{id}/cancel", 200),
        (hub.post(&format!("/api/v0/jobs/{job}/replay")), "POST /api/v0/jobs/{id}/replay", 202),
        (hub.post("/api/v0/jobs/none/cancel"), "POST /api/v0/jobs/{id}/cancel", 404),
        (hub.post("/api/v0/agents/tokens"), "POST /api/v0/agents/tokens", 201),
        (hub.post("/api/v0/agents/tokens").json(&json!({"no": 1})), "POST /api/v0/agents/tokens", 400),
        (hub.post("/api/v0/settlement"), "POST /api/v0/settlement", 200),
        (
            hub.http.put(hub.url(&format!("/api/v0/blobs/{digest}?bytes=5"))).bearer_auth(&hub.key).body("hello"),
            "PUT /api/v0/blobs/{digest}",
            201,
        ),
        (
            hub.post(&format!("/api/v0/blobs/{digest}/urls"))
                .json(&json!({"method": "PUT", "seconds": 60, "bytes": 5})),
            "POST /api/v0/blobs/{digest}/urls",
            200,
        ),
    ] {
        let (answered, left) = left_by(&hub, request).await;
        let row = one(&left);
        assert_eq!((row["action"].as_str(), row["status"].as_u64()), (Some(action), Some(status)), "{}", answered.body);
        if let Some(url) = answered.body["url"].as_str().filter(|_| action.ends_with("/urls")) {
            let (_, left) = left_by(&hub, hub.http.put(url).body("hello")).await;
            let row = one(&left);
            assert_eq!((row["key"].as_str(), row["project"].as_str()), (Some("signed url"), Some("default")));
        }
    }
    // What changes nothing leaves nothing.
    for request in [
        sent("/api/v0/ops/plan", body.clone()),
        hub.get("/api/v0/jobs"),
        hub.get("/api/v0/audit/head"),
        hub.http.post(hub.url("/api/v0/nowhere")),
    ] {
        assert_eq!(left_by(&hub, request).await.1, Vec::<Value>::new());
    }
    let export = export(&hub, "").await;
    assert_eq!(checked(&hub, &export).await.faults, []);
    drop(agent);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    // No agent: the job waits, and its client goes.
    let waiting = hub.execute(&contract(2)).send();
    let gone = tokio::time::timeout(std::time::Duration::from_millis(300), waiting).await;
    assert!(gone.is_err(), "the client waited for a job that cannot have ended");
    let jobs = answer(hub.get("/api/v0/jobs")).await;
    let job = jobs.body["items"][0]["job_id"].as_str().unwrap().to_owned();
    let left = rows(&hub, "&action=POST%20%2Fapi%2Fv0%2Fops%2Fexecute").await;
    assert_eq!((left.len(), left[0]["note"].as_str()), (1, Some(format!("job {job}").as_str())));
}

#[tokio::test]
async fn strangers_do_not_fill_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    for number in 0..200 {
        let request = match number % 2 {
            0 => hub.http.get(hub.url("/api/v0/jobs")).bearer_auth("fpk_wrong-key"),
            _ => hub.http.post(hub.url("/api/v0/ops/execute")).json(&json!({})),
        };
        assert_eq!(answer(request).await.status, 401);
    }
    // Behind everything that came before it.
    answer(hub.post("/api/v0/settlement")).await;
    let left = rows(&hub, "").await;
    let refused: Vec<&Value> = left.iter().filter(|row| row["status"] == 401).collect();
    assert!((30..=32).contains(&refused.len()), "{} rows", refused.len());
    for row in &refused {
        assert_eq!((row["key"].as_str(), row["project"].as_str()), (Some(""), Some("")));
        assert_eq!((row["code"].as_str(), row["peer"].as_str()), (Some("request.unauthenticated"), Some("127.0.0.1")));
    }
}

#[tokio::test]
async fn the_list_has_pages_and_filters() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &["--trusted-proxy", "127.0.0.1"]);
    for number in 0..7 {
        let request = hub.post("/api/v0/settlement").header("x-forwarded-for", format!("9.9.9.9, 10.0.0.{number}"));
        answer(request.header("x-trace-id", format!("t {number}").replace(' ', "-"))).await;
    }
    let mut found = Vec::new();
    let mut next = Some("/api/v0/audit?limit=3&action=POST%20%2Fapi%2Fv0%2Fsettlement".to_owned());
    while let Some(path) = next {
        let page = answer(hub.get(&path)).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        found.extend(page.body["items"].as_array().unwrap().clone());
        next = page.body["next"].as_str().map(str::to_owned);
    }
    let peers: Vec<&str> = found.iter().map(|row| row["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, (0..7).rev().map(|number| format!("10.0.0.{number}")).collect::<Vec<_>>());
    assert_eq!(rows(&hub, "&trace_id=t-3").await.len(), 1);
    assert_eq!(rows(&hub, "&project=other").await.len(), 0);
    assert_eq!(rows(&hub, "&key=operator").await.len(), 1);
    assert_eq!(rows(&hub, "&since_ms=99999999999999").await.len(), 0);
    for bad in ["?limit=0", "?limit=1001", "?unknown=1", "?before=x"] {
        assert_eq!(answer(hub.get(&format!("/api/v0/audit{bad}"))).await.status, 400, "{bad}");
    }
    assert_eq!(answer(hub.get("/api/v0/audit/export?from=0")).await.status, 400);
    let beyond = export(&hub, "?from=1000").await;
    let found = checked(&hub, &beyond).await;
    assert_eq!((found.faults, found.rows), (vec![], 0));
    assert_eq!(answer(hub.http.get(hub.url("/api/v0/audit"))).await.status, 401);
}

#[tokio::test]
async fn an_export_holds_the_hub_to_its_word() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &["--audit-head-ms", "50"]);
    for _ in 0..5 {
        answer(hub.post("/api/v0/settlement")).await;
    }
    let kept = answer(hub.get("/api/v0/audit/head")).await.body;
    let head: forge_lifecycle::trail::Head = serde_json::from_value(kept).unwrap();
    let key: Key = hub.ready["hub_key"].as_str().unwrap().parse().unwrap();
    assert_eq!((head.seq, head.key, head.is_signed(&is_signed)), (6, key, true));
    answer(hub.post("/api/v0/settlement")).await;
    let whole = export(&hub, "").await;
    let found = checked(&hub, &whole).await;
    assert_eq!((found.faults, found.rows, found.hidden), (vec![], 7, 0));
    assert_eq!(check(&whole, Some(key), Some(head.clone()), &is_signed).faults, []);
    let later = export(&hub, "?from=5").await;
    assert_eq!(checked(&hub, &later).await.rows, 3);
    // One letter of one row, a row less, the end off.
    let changed = whole.replacen("POST /api/v0/settlement", "POST /api/v0/settlemenT", 1);
    assert_eq!(checked(&hub, &changed).await.faults, [Fault::Changed { seq: 2 }]);
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let third = lines.iter().position(|line| line.starts_with("{\"seq\":3,")).unwrap();
    let dropped: String = lines.iter().enumerate().filter(|(at, _)| *at != third).map(|(_, line)| *line).collect();
    assert_eq!(checked(&hub, &dropped).await.faults[0], Fault::Order { expected: 3, found: 4 });
    let cut = lines[..lines.len() - 1].concat();
    assert_eq!(checked(&hub, &cut).await.faults, [Fault::Unfinished]);
    // After a restart the chain goes on, and what was signed at the end of the first process is in it.
    assert!(hub.leave().success());
    let hub = Hub::start(folder.path(), &[]);
    answer(hub.post("/api/v0/settlement")).await;
    let after = export(&hub, "").await;
    assert!(after.starts_with(&whole[..whole.find("\n{\"head\"").unwrap()]));
    assert!(after.contains("\"purpose\":\"shutdown\"") || after.contains("\"purpose\":\"periodic\""), "{after}");
    let found = check(&after, Some(key), Some(head), &is_signed);
    assert_eq!((found.faults, found.rows), (vec![], 8));
}
