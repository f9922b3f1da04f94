//! A job through the hub, from its contract to its evidence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use forge_contract::Digest;
use serde_json::{Value, json};
use support::{Agent, FUEL, Hub, Script, answer, contract, events};

async fn pool(agents: usize) -> (tempfile::TempDir, Hub, Vec<Agent>) {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let mut all = Vec::new();
    for _ in 0..agents {
        all.push(hub.agent(Script::default()).await);
    }
    (folder, hub, all)
}

#[tokio::test]
async fn the_answer_has_the_documented_shape() {
    let (_folder, hub, _agents) = pool(2).await;
    let given = answer(hub.execute(&contract(1000))).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert_eq!(given.header("x-trace-id"), "trace-1");
    let body = &given.body;
    assert_eq!(body["ok"], true);
    assert_eq!(body["status"], "COMPLETED");
    assert_eq!(body["client_job_id"], "mine");
    assert_eq!(body["trace_id"], "trace-1");
    assert_eq!(body["job_id"].as_str().unwrap().len(), 26);
    let metrics = &body["hub"]["metrics"];
    assert_eq!(metrics["units"], 1000);
    assert_eq!(metrics["iterations"], 1000);
    assert_eq!(metrics["fuel"], 1000 * FUEL);
    assert!(metrics["wall_ms"].is_u64() && metrics["agents_used"].as_u64().unwrap() >= 1);
    assert_eq!(metrics["shards"], metrics["shards_total"]);
    assert_eq!(body["hub"]["replay"]["root_seed"], "S");
    assert!(
        body["hub"]["output"]["work"].is_number() || body["hub"]["output"]["work"].is_object(),
        "{}",
        body["hub"]["output"]
    );
    assert_eq!(body["hub"]["verification"]["mode"], "none");
    assert_eq!(body["billing"]["mode"], "test");
    assert_eq!(body["billing"]["charged"], false);
    // 1000 units of 1234 fuel at 3e9 fuel a credit, rounded up to the micro-credit.
    assert_eq!(body["billing"]["credits_micro"], 412);
    assert_eq!(body["billing"]["credits"], 0.000412);
    assert_eq!(body["executions"]["count"], metrics["attempts"]);
    let shown = answer(hub.get(body["links"]["self"].as_str().unwrap())).await;
    assert_eq!(&shown.body, body);
}

#[tokio::test]
async fn the_same_contract_runs_twice_with_the_same_bits_however_many_agents() {
    let (_folder, hub, mut agents) = pool(1).await;
    let first = answer(hub.execute(&contract(5000))).await.body;
    agents.push(hub.agent(Script::default()).await);
    agents.push(hub.agent(Script::default()).await);
    let mut other = contract(5000);
    other["policy"]["shards"] = json!(64);
    let second = answer(hub.execute(&other)).await.body;
    assert_ne!(first["job_id"], second["job_id"]);
    for field in ["replay_key", "result_digest", "component", "root_seed"] {
        assert_eq!(first["hub"]["replay"][field], second["hub"]["replay"][field], "{field}");
    }
    assert_eq!(first["hub"]["output"], second["hub"]["output"]);
    assert_ne!(first["hub"]["metrics"]["shards"], second["hub"]["metrics"]["shards"]);
}

#[tokio::test]
async fn artifacts_are_complete_and_addressed_by_content() {
    let (_folder, hub, _agents) = pool(2).await;
    let job = answer(hub.execute(&contract(3000))).await.body;
    let base = job["links"]["self"].as_str().unwrap().to_owned();
    let listed = answer(hub.get(&format!("{base}/artifacts"))).await.body;
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items, job["artifacts"].as_array().unwrap());
    let mut contents = std::collections::BTreeMap::new();
    for item in items {
        let fetched = answer(hub.get(item["url"].as_str().unwrap())).await;
        assert_eq!(Digest::of(&fetched.bytes).to_string(), item["digest"].as_str().unwrap());
        assert_eq!(fetched.bytes.len() as u64, item["bytes"].as_u64().unwrap());
        let tag = fetched.header("etag").to_owned();
        let again = answer(hub.get(item["url"].as_str().unwrap()).header("if-none-match", tag)).await;
        assert_eq!(again.status, 304);
        contents.insert(item["name"].as_str().unwrap().to_owned(), fetched.bytes);
    }
    for name in [
        "contract_json",
        "plan_json",
        "executions_json",
        "verification_json",
        "result_json",
        "metrics_json",
        "fragment_count",
        "component_wasm",
        "evidence_json",
    ] {
        assert!(contents.contains_key(name), "{name} of {:?}", contents.keys());
    }
    let shards: Vec<Value> = serde_json::from_slice(&contents["shards_json"]).unwrap();
    let units: Vec<&Value> = shards.iter().flat_map(|shard| shard["units"].as_array().unwrap()).collect();
    assert_eq!(units.len(), 3000);
    assert!(units.iter().all(|unit| unit["fuel"] == FUEL));

    let executions: Vec<Value> = serde_json::from_slice(&contents["executions_json"]).unwrap();
    let listed = answer(hub.get(&format!("{base}/executions?limit=1000"))).await.body;
    assert_eq!(listed["items"].as_array().unwrap(), &executions);
    let mut next = Some(format!("{base}/executions?limit=1"));
    let mut paged = Vec::new();
    while let Some(path) = next {
        let page = answer(hub.get(&path)).await.body;
        paged.extend(page["items"].as_array().unwrap().clone());
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(paged, executions);
    let units: u64 = executions.iter().map(|e| e["units"].as_u64().unwrap()).sum();
    assert_eq!(units, 3000);
    for field in ["agent_id", "shard_id", "seed", "result_hash"] {
        assert!(executions.iter().all(|e| e[field].as_str().is_some_and(|text| !text.is_empty())), "{field}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_kept() {
    let (_folder, hub, _agents) = pool(1).await;
    let mut asked = contract(10);
    asked["artifacts"] = json!({"include": ["result_json"]});
    let job = answer(hub.execute(&asked)).await.body;
    let names: Vec<&str> = job["artifacts"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"result_json") && !names.contains(&"executions_json") && !names.contains(&"metrics_json"),
        "{names:?}"
    );
    asked["artifacts"] = json!({"persist": false});
    let job = answer(hub.execute(&asked)).await.body;
    assert_eq!(job["artifacts"], json!([]));
    assert_eq!(job["ok"], true);
}

#[tokio::test]
async fn respond_async_names_the_place_and_events_lead_to_the_end() {
    let (_folder, hub, _agents) = pool(2).await;
    let given = answer(hub.execute(&contract(200_000)).header("prefer", "respond-async")).await;
    assert_eq!(given.status, 202, "{}", given.body);
    assert_eq!(given.header("preference-applied"), "respond-async");
    let place = given.header("location").to_owned();
    assert_eq!(given.body["links"]["self"], place);
    let stream = answer(hub.get(&format!("{place}/events"))).await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let all = events(std::str::from_utf8(&stream.bytes).unwrap());
    let (_, name, last) = all.last().unwrap();
    assert_eq!(name, "finished");
    assert_eq!(last["status"], "COMPLETED");
    let progress: Vec<_> = all.iter().filter(|(_, name, _)| name == "progress").collect();
    assert!(!progress.is_empty());
    assert!(progress.windows(2).all(|pair| pair[0].0 < pair[1].0), "ids rise");
    assert!(progress.iter().all(|(_, _, data)| data["units_done"].as_u64() <= data["units_total"].as_u64()));
    assert_eq!(&answer(hub.get(&place)).await.body, last);
    // Over: only the end comes, and the stream closes.
    let again = answer(hub.get(&format!("{place}/events"))).await;
    let again = events(std::str::from_utf8(&again.bytes).unwrap());
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].2["job_id"], last["job_id"]);
}

#[tokio::test]
async fn retries_with_a_key_find_the_job_and_another_body_does_not() {
    let (_folder, hub, _agents) = pool(1).await;
    let keyed = |contract: &Value, key: &str| hub.execute(contract).header("idempotency-key", key.to_owned());
    let racing = (0..8).map(|_| {
        let request = keyed(&contract(2000), "race");
        tokio::spawn(async move { answer(request).await })
    });
    let mut jobs = std::collections::BTreeSet::new();
    let mut replayed = 0;
    for task in racing.collect::<Vec<_>>() {
        let given = task.await.unwrap();
        assert_eq!(given.status, 200, "{}", given.body);
        replayed += u32::from(given.header("idempotency-replayed") == "true");
        jobs.insert(given.body["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!((jobs.len(), replayed), (1, 7));
    let other = answer(keyed(&contract(2001), "race")).await;
    assert_eq!((other.status, other.body["code"].as_str()), (409, Some("request.idempotency_mismatch")));
    assert_eq!(other.body["job_id"].as_str(), jobs.first().map(String::as_str));
    assert_eq!(answer(hub.get("/api/v0/jobs")).await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cancelled_job_is_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let _stuck = hub.agent(Script { answers_max: Some(1), ..Script::default() }).await;
    let mut asked = contract(10_000);
    asked["policy"]["shards"] = json!(16);
    let waiting = tokio::spawn(answer(hub.execute(&asked).header("idempotency-key", "c")));
    let job = loop {
        let listed = answer(hub.get("/api/v0/jobs?status=RUNNING")).await.body;
        if let Some(job) = listed["items"][0]["job_id"].as_str() {
            break job.to_owned();
        }
    };
    let cancelled = answer(hub.post(&format!("/api/v0/jobs/{job}/cancel"))).await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.body);
    let given = waiting.await.unwrap();
    assert_eq!(
        (given.status, given.body["status"].as_str(), given.body["ok"].as_bool()),
        (409, Some("CANCELLED"), Some(false))
    );
    assert_eq!(given.body["error"]["code"], "request.cancelled");
    let again = answer(hub.post(&format!("/api/v0/jobs/{job}/cancel"))).await;
    assert_eq!((again.status, again.body["status"].as_str()), (200, Some("CANCELLED")));
}

#[tokio::test]
async fn without_agents_the_job_fails_with_its_code_and_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &["--no-agents-ms", "50"]);
    let given = answer(hub.execute(&contract(10))).await;
    assert_eq!(given.status, 503, "{}", given.body);
    assert_eq!(given.header("content-type"), "application/json");
    assert_eq!(given.body["error"]["code"], "scheduling.no_agents");
    assert_eq!(given.body["error"]["family"], "scheduling");
    assert_eq!(given.body["billing"]["credits_micro"], 0);
    let shown = answer(hub.get(given.body["links"]["self"].as_str().unwrap())).await;
    assert_eq!((shown.status, &shown.body), (200, &given.body));
}

#[tokio::test]
async fn planning_runs_and_records_nothing() {
    let (_folder, hub, _agents) = pool(0).await;
    let plan = || hub.post("/api/v0/ops/plan").json(&contract(1000));
    let (one, two) = (answer(plan()).await, answer(plan()).await);
    assert_eq!(one.status, 200, "{}", one.body);
    assert_eq!(one.body, two.body);
    assert_eq!(one.body["units"], 1000);
    assert!(one.body["quote"]["credits_micro"].as_u64().unwrap() > 0);
    assert_eq!(answer(hub.get("/api/v0/jobs")).await.body["items"], json!([]));
}

#[tokio::test]
async fn jobs_are_listed_in_pages_newest_first() {
    let (_folder, hub, _agents) = pool(1).await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        sent.push(answer(hub.execute(&contract(10))).await.body["job_id"].as_str().unwrap().to_owned());
    }
    sent.reverse();
    let (mut found, mut next) = (Vec::new(), Some("/api/v0/jobs?limit=2&status=COMPLETED".to_owned()));
    while let Some(path) = next {
        let page = answer(hub.get(&path)).await.body;
        found.extend(page["items"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(found, sent);
    for bad in ["limit=0", "limit=x", "status=DONE", "before=1", "other=1"] {
        let given = answer(hub.get(&format!("/api/v0/jobs?{bad}"))).await;
        assert_eq!((given.status, given.header("content-type")), (400, "application/problem+json"), "{bad}");
        assert_eq!(given.body["code"], "request.schema", "{bad}");
    }
}

#[tokio::test]
async fn a_token_enrols_one_agent_and_operators_see_it() {
    let (_folder, hub, _agents) = pool(0).await;
    let token = hub.token().await;
    let identity = std::sync::Arc::new(forge_protocol::Identity::generate().unwrap());
    let _first = Agent::join(&hub.quic(), &token, identity.clone(), Script::default()).await;
    let other = std::sync::Arc::new(forge_protocol::Identity::generate().unwrap());
    let refused = forge_protocol::AgentLink::connect(
        &[hub.quic()],
        token.hub_key,
        &other,
        &support::introduction(Some(token.secret)),
        &forge_protocol::LinkSettings::default(),
    )
    .await;
    assert!(matches!(refused, Err(forge_protocol::LinkError::Refused(_))));
    let listed = loop {
        let listed = answer(hub.get("/api/v0/agents")).await.body;
        if listed["connected"] == 1 {
            break listed;
        }
    };
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["agent_id"], identity.agent_id().to_string());
    assert_eq!(listed["items"][0]["state"], "connected");
    assert_eq!(listed["items"][0]["capability"]["cores"], 2);
}
