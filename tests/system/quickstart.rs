//! The contract of the product's documentation, sent as it stands there, answered as it stands there.

use forge_tests::contract;
use forge_tests::pool::Pool;

use crate::answers::number;

#[tokio::test]
async fn the_documented_request_gets_the_documented_answer() {
    let pool = Pool::start(4).await;
    let answer = pool.api.execute_text(contract::quickstart_text()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/json");
    let body = &answer.body;
    assert_eq!(body["ok"], true);
    assert_eq!(body["status"], "COMPLETED");
    assert_eq!(body["client_job_id"], "quickstart-001");
    assert_eq!(body["trace_id"], "trace-quickstart-001");
    let job = body["job_id"].as_str().unwrap();
    assert_eq!(job.len(), 26, "a ULID: {job}");
    assert!(job.starts_with("01"), "{job}");
    assert!(number(body, "/hub/metrics/wall_ms") >= 0.0);
    let agents = number(body, "/hub/metrics/agents_used");
    assert!((1.0..=4.0).contains(&agents), "{agents} agents");
    assert!(number(body, "/hub/metrics/shards") >= 1.0);
    for name in ["mean", "variance", "p50", "p95", "max"] {
        assert!(number(body, &format!("/hub/output/loss/{name}")) > 0.0);
    }
    assert_eq!(body["hub"]["replay"]["root_seed"], "ROOT_SEED_QUICKSTART");
    assert!(body["hub"]["replay"]["replay_key"].is_string());
    for name in ["credits", "eur"] {
        assert!(number(body, &format!("/billing/{name}")) >= 0.0);
    }

    let stored = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(stored.status, 200, "{}", stored.text);
    assert_eq!(stored.body["hub"]["output"], body["hub"]["output"]);
    assert_eq!(stored.body["hub"]["replay"], body["hub"]["replay"]);

    let again = pool.api.execute_text(contract::quickstart_text()).await;
    assert_ne!(again.body["job_id"], body["job_id"], "the same contract twice runs twice");
    assert_eq!(again.body["hub"]["output"], body["hub"]["output"]);
    assert_eq!(again.body["hub"]["replay"], body["hub"]["replay"]);

    let jobs = pool.api.get("/api/v0/jobs").await;
    let listed = jobs.body["items"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{}", jobs.text);
    assert_eq!(listed[0]["job_id"], again.body["job_id"], "newest first");
    pool.stop().await;
}

#[tokio::test]
async fn the_alternative_key_header_works_and_no_key_does_not() {
    let pool = Pool::start(1).await;
    let http = forge_tests::api::http();
    let url = format!("{}/api/v0/jobs", pool.api.url);
    let with = http.get(&url).header("x-forge-api-key", &pool.api.key).send().await.unwrap();
    assert_eq!(with.status(), 200);
    for request in [http.get(&url), http.get(&url).bearer_auth("fpk_wrong")] {
        let refused = pool.api.send(request).await;
        assert_eq!(refused.status, 401, "{}", refused.text);
        assert_eq!(refused.at("/code"), "request.unauthenticated");
        assert_eq!(refused.headers["content-type"], "application/problem+json");
    }
    for open in ["/healthz", "/readyz", "/metrics"] {
        let answer = http.get(format!("{}{open}", pool.api.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{open}");
    }
    pool.stop().await;
}

#[tokio::test]
async fn planning_runs_nothing_and_is_always_the_same() {
    let pool = Pool::start(1).await;
    let plan = || async {
        let request = pool.api.request(reqwest::Method::POST, "/api/v0/ops/plan");
        pool.api.send(request.header("content-type", "application/json").body(contract::quickstart_text())).await
    };
    let (first, second) = (plan().await, plan().await);
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(first.body["plan"], second.body["plan"]);
    assert_eq!(pool.api.get("/api/v0/jobs").await.body["items"].as_array().unwrap().len(), 0);
    pool.stop().await;
}
