//! What becomes of a finished job when an agent it rested on is refuted later, or is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forge_contract::{AgentId, Digest, FailureCode};
use forge_hub::store::blobs::Blobs;
use forge_hub::store::sqlite::Sqlite;
use forge_hub::store::{Store as _, Write};
use forge_lifecycle::bundle::audit::{Found, audit};
use forge_lifecycle::bundle::decode;
use forge_lifecycle::bundle::erratum::{Erratum, ErratumVerdict};
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_protocol::{AgentLink, Identity, LinkError, LinkSettings};
use serde_json::{Value, json};
use support::{Agent, Hub, Script, answer, contract, introduction};

/// Three tiles, a shard each.
const TILES: u64 = 3;
/// What an agent earns by all of them: 80% of a credit each, in micro-credits.
const PAY: u64 = TILES * 800_000;
/// The hub's own sweep stays away: what is settled here is settled by an event or by request.
const QUIET: [&str; 2] = ["--settle-every-ms", "3600000"];

fn verify(key: &Key, message: &[u8], signature: &Signature) -> bool {
    forge_protocol::identity::verify(&key.0, message, &signature.0)
}

fn flag(value: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(value))
}

fn liar(lies: &Arc<AtomicBool>) -> Script {
    Script { lies: Arc::clone(lies), ..Script::default() }
}

/// A product of two matrices that nobody reads: what comes back is the agents' word.
async fn tiles(hub: &Hub) -> Value {
    let mut asked = contract(1);
    asked["op"] = json!({"name": "gemm", "version": 1, "profile": "dgemm"});
    asked["ctx"]["billing"]["mode"] = json!("billable");
    asked["policy"]["shards"] = json!(4);
    let mut args = json!({"m": 1025, "n": 1, "k": 1, "alpha": 0});
    for name in ["a", "b"] {
        let digest = Digest::of(name.as_bytes()).to_string();
        let put = hub.http.put(hub.url(&format!("/api/v0/blobs/{digest}?bytes={}", name.len()))).bearer_auth(&hub.key);
        let put = answer(put.body(name.to_owned())).await;
        assert!(put.status == 201 || put.status == 200, "{}", put.body);
        args[name] = json!(digest);
    }
    asked["args"] = args;
    let done = answer(hub.execute(&asked)).await;
    assert_eq!(done.status, 200, "{}", done.body);
    done.body
}

fn id(job: &Value) -> &str {
    job["job_id"].as_str().unwrap()
}

fn result(job: &Value) -> &str {
    job["hub"]["replay"]["result_digest"].as_str().unwrap()
}

async fn standing(hub: &Hub, job: &str) -> Value {
    let shown = answer(hub.get(&format!("/api/v0/jobs/{job}/standing"))).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    shown.body
}

/// Asks until the job stands so.
async fn stands(hub: &Hub, job: &str, such: impl Fn(&Value) -> bool) -> Value {
    loop {
        let found = standing(hub, job).await;
        if such(&found) {
            return found;
        }
    }
}

async fn agent(hub: &Hub, agent: AgentId) -> Value {
    let shown = answer(hub.get(&format!("/api/v0/agents/{agent}"))).await;
    assert_eq!(shown.status, 200, "{}", shown.body);
    shown.body
}

fn kinds(agent: &Value) -> Vec<&str> {
    agent["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

/// A job in which whoever lies is found out.
async fn audited(hub: &Hub) -> Value {
    let mut asked = contract(64);
    asked["policy"]["verify"] = json!("spotcheck");
    asked["policy"]["shards"] = json!(64);
    let done = answer(hub.execute(&asked)).await;
    assert_eq!(done.status, 200, "{}", done.body);
    done.body
}

/// Takes an agent out while the hub is down: what a hub that died right after that finds.
async fn refuted_and_dead(data: &Path, agent: AgentId, job: &str) {
    let blobs = Arc::new(Blobs::open(&data.join("blobs")).unwrap());
    let store = Sqlite::open(&data.join("hub.db"), blobs).await.unwrap();
    let (code, job) = (FailureCode::VerificationMismatch, job.parse().unwrap());
    store.submit(Write::Quarantine { agent, code, job }).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn what_a_liar_left_behind_is_corrected_and_what_it_did_honestly_is_upheld() {
    for lied in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::start(folder.path(), &QUIET);
        let lies = flag(lied);
        let mut liar = hub.agent(liar(&lies)).await;
        liar.told(|standing| standing.events.iter().any(|event| event.contains("enrolled"))).await;
        let job = tiles(&hub).await;
        let path = format!("/api/v0/jobs/{}", id(&job));
        let evidence = answer(hub.get(&format!("{path}/evidence"))).await.bytes;
        let before = standing(&hub, id(&job)).await;
        assert_eq!((&before["standing"], &before["shards_alone"]), (&json!("provisional"), &json!(TILES)), "{before}");
        assert_eq!((&before["agents"][0]["agent_id"], &before["errata"]), (&json!(liar.id.to_string()), &json!([])));
        assert_eq!(agent(&hub, liar.id).await["earnings"]["held_micro"], PAY);

        // Later, and in another job, it is found out.
        lies.store(true, Ordering::SeqCst);
        let (honest, verifier) = (hub.agent(Script::default()).await, hub.verifier(Script::default()).await);
        let other = audited(&hub).await;
        let ended = ["upheld", "corrected"];
        let after = stands(&hub, id(&job), |found| ended.contains(&found["standing"].as_str().unwrap())).await;
        assert_eq!(after["standing"], if lied { "corrected" } else { "upheld" }, "{after}");
        assert_eq!(after["agents"][0]["state"], "forfeited");
        let erratum = &after["errata"][0];
        assert_eq!((&erratum["shards"], &erratum["reason"]), (&json!(TILES), &json!("verification.mismatch")));
        assert_eq!(erratum["result_before"], result(&job));
        let run = answer(hub.get(erratum["url"].as_str().unwrap())).await.body;
        assert_eq!(run["erratum"], json!({"of": id(&job), "verdict": after["standing"]}));
        assert_eq!(erratum["result_after"], result(&run));
        assert_eq!(result(&run) == result(&job), !lied);
        assert_eq!(after["result_of"], if lied { run["job_id"].clone() } else { job["job_id"].clone() });
        // The platform pays for it.
        assert_eq!((&run["billing"]["charged"], &job["billing"]["charged"]), (&json!(false), &json!(true)));

        // What was given out stays as it was.
        assert_eq!(answer(hub.get(&path)).await.body, job);
        assert!(answer(hub.get(&format!("{path}/evidence"))).await.bytes == evidence, "the evidence changed");
        // The run has evidence of its own, and the hub's word is part of it.
        let known: Key = hub.ready["hub_key"].as_str().unwrap().parse().unwrap();
        let bytes = answer(hub.get(run["links"]["evidence"].as_str().unwrap())).await.bytes;
        let bundle = decode(&bytes).unwrap();
        for check in audit(&bundle, Some(&known), &verify) {
            assert_eq!(check.result, Found::Ok, "{}: {}", check.name, check.detail);
        }
        let record = answer(hub.get(erratum["record_url"].as_str().unwrap())).await.bytes;
        assert_eq!(bundle.content("erratum_json"), Some(record.as_slice()));
        let record: Erratum = serde_json::from_slice(&record).unwrap();
        assert!(record.is_signed(&verify) && record.signature.public_key == known);
        let verdict = if lied { ErratumVerdict::Corrected } else { ErratumVerdict::Upheld };
        assert_eq!((record.finding.verdict, &record.finding.agents[..]), (verdict, &[liar.id][..]));

        // The liar lost what it held; who ran it again is paid for it.
        let found = agent(&hub, liar.id).await;
        assert_eq!(found["earnings"], json!({"held_micro": 0, "payable_micro": 0, "forfeited_micro": PAY}));
        assert_eq!((&found["quarantined"], &found["quarantine_code"]), (&json!(true), &json!("verification.mismatch")));
        let seen = kinds(&found);
        assert_eq!((seen[0], seen[1], seen.last()), ("forfeited", "quarantined", Some(&"enrolled")), "{seen:?}");
        let refuted = found["events"].as_array().unwrap().iter().find(|event| event["kind"] == "refuted").unwrap();
        assert_eq!(refuted["job_id"], other["job_id"]);
        let (mut paid, mut earned) = (0, 0);
        for other in [&honest, &verifier] {
            paid += agent(&hub, other.id).await["earnings"]["held_micro"].as_u64().unwrap();
        }
        for share in standing(&hub, id(&run)).await["agents"].as_array().unwrap() {
            // A sample may have been drawn: a check is paid like a first answer.
            let shards = share["shards_alone"].as_u64().unwrap() + share["shards_confirmed"].as_u64().unwrap();
            earned += shards * PAY / TILES;
        }
        assert!(paid == earned && paid >= PAY, "{paid} paid, {earned} earned");
        let told = liar.told(|standing| standing.forfeited_micro > 0).await;
        assert_eq!((told.quarantined.as_deref(), told.forfeited_micro), (Some("verification.mismatch"), PAY));
    }
}

#[tokio::test]
async fn an_erratum_survives_kill_nine_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &QUIET);
    let liar = hub.agent(liar(&flag(true))).await;
    let job = tiles(&hub).await;
    let (quic, liar_id) = (hub.quic(), liar.id);
    hub.kill();
    drop(liar);
    // Dead between the quarantine and the run.
    refuted_and_dead(folder.path(), liar_id, id(&job)).await;

    let hub = Hub::on(folder.path(), &quic, &QUIET);
    let holds = flag(true);
    let (key, token) = (Arc::new(Identity::generate().unwrap()), hub.token().await);
    let script = Script { holds_tiles: Arc::clone(&holds), ..Script::default() };
    let keeper = Agent::join(&quic, &token, Arc::clone(&key), script.clone()).await;
    let running = stands(&hub, id(&job), |found| found["errata"][0]["state"] == "running").await;
    assert_eq!((&running["standing"], &running["settled"]), (&json!("rechecking"), &json!(false)));
    let run = running["errata"][0]["job_id"].clone();
    // Dead in the middle of it.
    hub.kill();
    drop(keeper);

    let hub = Hub::on(folder.path(), &quic, &QUIET);
    holds.store(false, Ordering::SeqCst);
    let _keeper = Agent::join(&quic, &token, key, script).await;
    let after = stands(&hub, id(&job), |found| found["standing"] == "corrected").await;
    assert_eq!(after["errata"].as_array().unwrap().len(), 1);
    assert_eq!(after["errata"][0]["job_id"], run, "the same run goes on");
    // Dead after it: nothing begins anew.
    hub.kill();
    let hub = Hub::start(folder.path(), &QUIET);
    assert_eq!(standing(&hub, id(&job)).await, after);
    let swept = answer(hub.post("/api/v0/settlement")).await.body;
    assert_eq!(swept, json!({"settled": 0, "errata": 0}));
}

#[tokio::test]
async fn an_erratum_run_that_finds_nobody_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &QUIET);
    let liar = hub.agent(liar(&flag(true))).await;
    let job = tiles(&hub).await;
    let liar_id = liar.id;
    hub.kill();
    drop(liar);
    refuted_and_dead(folder.path(), liar_id, id(&job)).await;

    let impatient = [&QUIET[..], &["--no-agents-ms", "1"]].concat();
    let hub = Hub::start(folder.path(), &impatient);
    let failed = stands(&hub, id(&job), |found| found["errata"][0]["failed_runs"] == 1).await;
    assert_eq!((&failed["standing"], &failed["errata"][0]["state"]), (&json!("rechecking"), &json!("pending")));
    // The run that failed is a failed job; the doubt is not forgotten with it.
    let honest = hub.agent(Script::default()).await;
    while agent(&hub, honest.id).await["connected"] != json!(true) {}
    let swept = answer(hub.post("/api/v0/settlement")).await.body;
    assert_eq!(swept, json!({"settled": 0, "errata": 1}));
    let after = stands(&hub, id(&job), |found| found["standing"] == "corrected").await;
    assert_eq!(after["errata"][0]["failed_runs"], 1);
}

#[tokio::test]
async fn a_result_settles_by_further_shards_and_pay_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[&QUIET[..], &["--settle-shards", "20"]].concat());
    let mut first = hub.agent(Script::default()).await;
    let job = tiles(&hub).await;
    assert_eq!(standing(&hub, id(&job)).await["standing"], "provisional");
    let second = hub.agent(Script::default()).await;
    audited(&hub).await;
    let after = stands(&hub, id(&job), |found| found["standing"] == "settled").await;
    assert_eq!((&after["settled"], &after["agents"][0]["state"]), (&json!(true), &json!("payable")));
    let found = agent(&hub, first.id).await;
    assert_eq!(found["earnings"], json!({"held_micro": 0, "payable_micro": PAY, "forfeited_micro": 0}));
    assert!(found["accepted"].as_u64().unwrap() >= 20, "{found}");
    assert_eq!(kinds(&found)[0], "payable");
    let told = first.told(|standing| standing.payable_micro > 0).await;
    assert_eq!((told.payable_micro, told.held_micro, told.quarantined), (PAY, 0, None));
    // What was done under `test` earns nothing.
    assert_eq!(agent(&hub, second.id).await["earnings"]["held_micro"], 0);

    // By time alone, at the operator's word; not for a job that has no result.
    hub.kill();
    let hub = Hub::start(folder.path(), &[&QUIET[..], &["--settle-ms", "0"]].concat());
    let _third = hub.agent(Script::default()).await;
    let job = tiles(&hub).await;
    answer(hub.post("/api/v0/settlement")).await;
    assert_eq!(standing(&hub, id(&job)).await["standing"], "settled");
    let missing = answer(hub.get("/api/v0/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV/standing")).await;
    assert_eq!(missing.status, 404);
    let mut nowhere = contract(10);
    nowhere["policy"]["target"] = json!("gpu");
    let waiting = answer(hub.execute(&nowhere).header("prefer", "respond-async")).await.body;
    let refused = answer(hub.get(&format!("/api/v0/jobs/{}/standing", id(&waiting)))).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("request.state")), "{}", refused.body);
}

#[tokio::test]
async fn who_is_readmitted_starts_anew_and_who_is_removed_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &QUIET);
    let lies = flag(true);
    let (key, token) = (Arc::new(Identity::generate().unwrap()), hub.token().await);
    let mut liar = Agent::join(&hub.quic(), &token, Arc::clone(&key), liar(&lies)).await;
    let (_honest, _verifier) = (hub.agent(Script::default()).await, hub.verifier(Script::default()).await);
    audited(&hub).await;
    let path = format!("/api/v0/agents/{}", liar.id);
    assert_eq!(agent(&hub, liar.id).await["quarantined"], json!(true));
    let without = audited(&hub).await;
    let executions = answer(hub.get(without["links"]["executions"].as_str().unwrap())).await.body;
    let others = executions["items"].as_array().unwrap().iter().all(|item| item["agent_id"] != liar.id.to_string());
    assert!(others, "no work in quarantine");

    lies.store(false, Ordering::SeqCst);
    let readmitted = answer(hub.post(&format!("{path}/readmit"))).await;
    assert_eq!(readmitted.status, 200, "{}", readmitted.body);
    let found = &readmitted.body;
    assert_eq!((&found["quarantined"], &found["clean"], &found["strikes"]), (&json!(false), &json!(0), &json!(0)));
    assert_eq!(found["audit_ppm"], 1_000_000);
    assert!(found["readmitted_at_ms"].is_u64());
    let again = answer(hub.post(&format!("{path}/readmit"))).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("request.state")));
    audited(&hub).await;
    let found = agent(&hub, liar.id).await;
    assert!(found["clean"].as_u64().unwrap() > 0 && found["quarantined"] == json!(false), "{found}");
    liar.told(|standing| {
        standing.quarantined.is_none() && standing.events.iter().any(|event| event.contains("readmitted"))
    })
    .await;

    let removed = answer(hub.post(&format!("{path}/remove"))).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    assert!(removed.body["removed_at_ms"].is_u64());
    assert_eq!(answer(hub.post(&format!("{path}/remove"))).await.status, 409);
    assert_eq!(answer(hub.post(&format!("{path}/readmit"))).await.status, 409, "not for one that was removed");
    // Its session ends, and neither its key nor a new token brings it back.
    while liar.standing.changed().await.is_ok() {}
    let fresh = hub.token().await;
    for secret in [None, Some(fresh.secret)] {
        let introduced = introduction(secret);
        let settings = LinkSettings::default();
        let refused = AgentLink::connect(&[hub.quic()], token.hub_key, &key, &introduced, &settings).await;
        assert!(matches!(refused, Err(LinkError::Refused(_))), "{refused:?}");
    }
    let nobody = AgentId(Digest::of(b"nobody"));
    for (word, path) in
        [("GET", format!("/api/v0/agents/{nobody}")), ("POST", format!("/api/v0/agents/{nobody}/readmit"))]
    {
        let request = if word == "GET" { hub.get(&path) } else { hub.post(&path) };
        assert_eq!(answer(request).await.status, 404, "{word} {path}");
    }
}
