//! Evidence bundles and replays, over HTTP, against agents that answer by script.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use forge_lifecycle::bundle::audit::{Found, audit};
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::bundle::{Bundle, decode};
use serde_json::{Value, json};
use support::{Agent, Answer, Hub, Script, answer, contract, events};

fn verify(key: &Key, message: &[u8], signature: &Signature) -> bool {
    forge_protocol::identity::verify(&key.0, message, &signature.0)
}

async fn pool(agents: usize) -> (tempfile::TempDir, Hub, Vec<Agent>) {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let mut joined = Vec::new();
    for _ in 0..agents {
        joined.push(hub.agent(Script::default()).await);
    }
    (folder, hub, joined)
}

fn id(job: &Value) -> &str {
    job["job_id"].as_str().unwrap()
}

async fn evidence(hub: &Hub, job: &str) -> Answer {
    answer(hub.get(&format!("/api/v0/jobs/{job}/evidence"))).await
}

/// Every check holds, but for those named, which are skipped.
fn sound(bundle: &Bundle<'_>, hub: &Hub, skipped: &[&str]) {
    let known: Key = hub.ready["hub_key"].as_str().unwrap().parse().unwrap();
    for check in audit(bundle, Some(&known), &verify) {
        let expected = if skipped.contains(&check.name) { Found::Skipped } else { Found::Ok };
        assert_eq!(check.result, expected, "{}: {}", check.name, check.detail);
    }
}

#[tokio::test]
async fn a_bundle_holds_everything_and_is_always_the_same_bytes() {
    let (folder, hub, agents) = pool(2).await;
    let mut asked = contract(3000);
    asked["policy"]["verify"] = json!("quorum");
    asked["policy"]["shards"] = json!(8);
    let job = answer(hub.execute(&asked)).await.body;
    let given = evidence(&hub, id(&job)).await;
    assert_eq!((given.status, given.header("content-type")), (200, "application/vnd.forgepool.evidence"));
    assert_eq!(given.header("content-length"), given.bytes.len().to_string());
    assert_eq!(given.header("content-disposition"), format!("attachment; filename=\"{}.evidence\"", id(&job)));
    let bundle = decode(&given.bytes).unwrap();
    assert_eq!(bundle.index.job.to_string(), id(&job));
    assert_eq!(given.header("etag"), format!("\"{}\"", bundle.index.root));
    sound(&bundle, &hub, &[]);
    let path = format!("/api/v0/jobs/{}/evidence", id(&job));
    let again = answer(hub.get(&path).header("if-none-match", given.header("etag"))).await;
    assert_eq!((again.status, again.bytes.len()), (304, 0));

    let slim = answer(hub.get(&format!("{path}?slim=true"))).await;
    let slim_bundle = decode(&slim.bytes).unwrap();
    assert_eq!(slim_bundle.index, bundle.index);
    assert_eq!(slim_bundle.content("component_wasm"), None);
    assert_ne!(slim.header("etag"), given.header("etag"));
    sound(&slim_bundle, &hub, &["component"]);

    drop(agents);
    hub.kill();
    let hub = Hub::start(folder.path(), &[]);
    assert!(evidence(&hub, id(&job)).await.bytes == given.bytes, "the bundle changed with a restart");
    assert_eq!(answer(hub.get("/api/v0/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV/evidence")).await.status, 404);
}

#[tokio::test]
async fn a_job_that_is_not_over_has_no_bundle_and_a_cancelled_one_has() {
    let (_folder, hub, _agents) = pool(0).await;
    let job = answer(hub.execute(&contract(100)).header("prefer", "respond-async")).await.body;
    let early = evidence(&hub, id(&job)).await;
    assert_eq!((early.status, &early.body["code"]), (409, &json!("request.state")), "{}", early.body);
    assert!(early.body["detail"].as_str().unwrap().contains("COMPLETED"));
    let early = answer(hub.post(&format!("/api/v0/jobs/{}/replay", id(&job)))).await;
    assert_eq!((early.status, &early.body["code"]), (409, &json!("request.state")), "{}", early.body);

    answer(hub.post(&format!("/api/v0/jobs/{}/cancel", id(&job)))).await;
    let stream = answer(hub.get(&format!("/api/v0/jobs/{}/events", id(&job)))).await;
    assert_eq!(events(std::str::from_utf8(&stream.bytes).unwrap()).last().unwrap().1, "finished");
    let given = evidence(&hub, id(&job)).await;
    let bundle = decode(&given.bytes).unwrap();
    sound(&bundle, &hub, &["output"]);
    let outcome: Value = serde_json::from_slice(bundle.content("outcome_json").unwrap()).unwrap();
    assert_eq!(outcome["status"], "CANCELLED");

    let refused = answer(hub.post(&format!("/api/v0/jobs/{}/replay", id(&job)))).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body["detail"].as_str().unwrap().contains("no result"), "{}", refused.body);
}

#[tokio::test]
async fn a_refused_request_and_one_that_keeps_nothing_have_no_bundle() {
    let (_folder, hub, _agents) = pool(1).await;
    let mut asked = contract(10);
    asked["op"]["name"] = json!("nothing");
    let refused = answer(hub.execute(&asked)).await.body;
    asked = contract(10);
    asked["artifacts"] = json!({"persist": false});
    let kept_nothing = answer(hub.execute(&asked)).await.body;
    for job in [refused, kept_nothing] {
        let none = evidence(&hub, id(&job)).await;
        assert_eq!((none.status, &none.body["code"]), (404, &json!("request.not_found")), "{}", none.body);
    }
}

#[tokio::test]
async fn a_replay_is_a_job_that_says_whether_it_gave_the_same() {
    let (_folder, hub, _agents) = pool(2).await;
    let job = answer(hub.execute(&contract(3000))).await.body;
    let path = format!("/api/v0/jobs/{}/replay", id(&job));
    let replayed = answer(hub.post(&path)).await;
    assert_eq!(replayed.status, 200, "{}", replayed.body);
    assert_eq!(replayed.body["replay"], json!({"of": id(&job), "verdict": "equal"}));
    assert_ne!(id(&replayed.body), id(&job));
    assert_eq!(replayed.body["hub"]["output"], job["hub"]["output"]);
    assert_eq!(replayed.body["hub"]["replay"]["plan_digest"], job["hub"]["replay"]["plan_digest"]);
    let given = evidence(&hub, id(&replayed.body)).await;
    let bundle = decode(&given.bytes).unwrap();
    sound(&bundle, &hub, &[]);
    let record: Value = serde_json::from_slice(bundle.content("replay_json").unwrap()).unwrap();
    assert_eq!(record, json!({"of": id(&job), "verdict": "equal"}));

    // Other agents and another mode, the same shards: the evidence still plans.
    let other = json!({"policy": {"verify": "quorum", "max_agents": 64}});
    let checked = answer(hub.post(&path).json(&other)).await;
    assert_eq!(checked.body["replay"]["verdict"], "equal", "{}", checked.body);
    assert_eq!(checked.body["hub"]["metrics"]["shards"], job["hub"]["metrics"]["shards"]);
    assert!(checked.body["hub"]["verification"]["checked"].as_u64().unwrap() > 0);
    sound(&decode(&evidence(&hub, id(&checked.body)).await.bytes).unwrap(), &hub, &[]);
    // A replay can be repeated too.
    let third = answer(hub.post(&format!("/api/v0/jobs/{}/replay", id(&checked.body)))).await;
    assert_eq!(third.body["replay"], json!({"of": id(&checked.body), "verdict": "equal"}));
}

#[tokio::test]
async fn a_replay_waits_is_named_once_and_refuses_as_executing_does() {
    let (_folder, hub, _agents) = pool(1).await;
    let (job, other) = (answer(hub.execute(&contract(50))).await.body, answer(hub.execute(&contract(50))).await.body);
    let replay = |job: &Value| hub.post(&format!("/api/v0/jobs/{}/replay", id(job)));
    let later = answer(replay(&job).header("prefer", "respond-async").header("idempotency-key", "k")).await;
    assert_eq!(later.status, 202, "{}", later.body);
    assert_eq!(later.header("location"), later.body["links"]["self"].as_str().unwrap());
    assert_eq!(later.body["replay"]["of"], id(&job));
    let again = answer(replay(&job).header("idempotency-key", "k")).await;
    assert_eq!((again.status, id(&again.body)), (200, id(&later.body)));
    // The same contract, yet another request: the key names one of them.
    let mixed = answer(replay(&other).header("idempotency-key", "k")).await;
    assert_eq!((mixed.status, &mixed.body["code"]), (409, &json!("request.idempotency_mismatch")), "{}", mixed.body);
    for (body, pointer) in [
        (json!({"policy": {"shards": 3}}), "/policy/shards"),
        (json!({"policy": 3}), "/policy"),
        (json!({"seed": {}}), "/seed"),
        (json!({"policy": {"verify": "often"}}), "/policy/verify"),
    ] {
        let refused = answer(replay(&job).json(&body)).await;
        assert_eq!((refused.status, &refused.body["pointer"]), (400, &json!(pointer)), "{}", refused.body);
    }
    assert_eq!(answer(hub.post("/api/v0/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV/replay")).await.status, 404);
}

#[tokio::test]
async fn an_agent_that_answers_otherwise_makes_a_replay_differ_at_the_first_unit() {
    let (_folder, hub, agents) = pool(1).await;
    let job = answer(hub.execute(&contract(500))).await.body;
    drop(agents);
    let script = Script { other_fuel_from: Some(123), ..Script::default() };
    let _liar = hub.agent(script).await;
    let replayed = answer(hub.post(&format!("/api/v0/jobs/{}/replay", id(&job)))).await;
    let replay = &replayed.body["replay"];
    assert_eq!(replay["verdict"], "different", "{}", replayed.body);
    assert_eq!((&replay["first_difference"]["stage"], &replay["first_difference"]["unit"]), (&json!(0), &json!(123)));
    assert_eq!(replay["first_difference"]["recorded"]["fuel"], support::FUEL);
    assert_eq!(replay["first_difference"]["found"]["fuel"], support::FUEL + 1);
    // It differs, and its own evidence is sound.
    sound(&decode(&evidence(&hub, id(&replayed.body)).await.bytes).unwrap(), &hub, &[]);
}
