//! The owner's side of an agent: limits, and the word from another terminal.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use forge_tests::binary::forgepool;
use forge_tests::contract::{changed, insurance};
use forge_tests::pool::Pool;
use forge_tests::{until, within};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::answers::digest;

/// `forgepool agent WORD --data DIR --json`.
pub(crate) async fn say(word: &str, data: &Path) -> Value {
    let mut command = Command::new(forgepool());
    command.args(["agent", word, "--json", "--data"]).arg(data);
    let output = within("answer of the agent", command.output()).await.unwrap();
    assert!(output.status.success(), "{word}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the hub sees its agents in these states.
async fn seen(pool: &Pool, states: &[&str]) {
    until("state of the agents", || async {
        let listed = pool.api.get("/api/v0/agents").await;
        let items = listed.body["items"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<String> = items.iter().map(|agent| agent["state"].as_str().unwrap().to_owned()).collect();
        found.sort();
        (found == states).then_some(())
    })
    .await;
}

fn shards_of_one_kernel(name: &str, seed: &str) -> Value {
    let mut contract = changed(insurance(2_000_000), &[("/policy/shards", json!(8)), ("/seed/value", json!(seed))]);
    if name == "noop" {
        contract["op"] = json!({ "name": "noop", "version": 1, "profile": "count.v1" });
        contract["args"] = json!({ "units": 64 });
        contract["seed"] = json!({ "mode": "derived" });
    }
    contract["policy"]["verify"] = json!("none");
    contract
}

#[tokio::test]
async fn an_agent_is_paused_resumed_and_drained_from_another_terminal() {
    let mut pool = Pool::start(1).await;
    let data = pool.agent_dir(0);
    let status = say("status", &data).await;
    assert_eq!((&status["state"], &status["cores"]), (&json!("working"), &json!(1)), "{status:#}");
    assert_eq!(status["hub"], pool.quic().as_str());
    // The hub's word on it comes soon after the welcome; this one enrolled as a verifier, which needs no probation.
    let standing = until("word of the hub", || async {
        let standing = say("status", &data).await["standing"].clone();
        standing.is_object().then_some(standing)
    })
    .await;
    assert_eq!((&standing["quarantined"], &standing["audit_ppm"]), (&json!(null), &json!(50_000)), "{standing:#}");
    assert!(standing["events"][0].as_str().unwrap().ends_with(" enrolled"), "{standing:#}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(data.join("control.sock")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let status = say("pause", &data).await;
    assert_eq!((&status["state"], &status["paused_by"]), (&json!("paused"), &json!(["owner"])), "{status:#}");
    seen(&pool, &["draining"]).await;
    let job = pool.api.submit(&shards_of_one_kernel("mc", "paused")).await;
    let waiting = pool.api.get(&format!("/api/v0/jobs/{job}")).await;
    assert_eq!(waiting.at("/progress/shards_done"), &json!(0), "{}", waiting.text);

    assert_eq!(say("resume", &data).await["paused_by"], json!([]));
    digest(&pool.api.finished(&job).await);
    seen(&pool, &["connected"]).await;
    let status = say("status", &data).await;
    assert_eq!((&status["state"], &status["completed"]), (&json!("working"), &json!(8)), "{status:#}");

    assert_eq!(say("drain", &data).await["state"], "draining");
    assert!(pool.agents[0].as_mut().unwrap().wait().await.success());
    pool.agents[0] = None;
    let output = Command::new(forgepool()).args(["agent", "status", "--data"]).arg(&data).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("no agent runs with the data directory"), "{text}");
    pool.stop().await;
}

#[tokio::test]
async fn kernels_that_are_not_allowed_are_given_back_before_they_are_fetched() {
    let mut pool = Pool::start(1).await;
    let hub = pool.quic();
    let picky = pool.join_at(&hub, &["--kernels", "noop@1", "--disk", "1"]).await;
    let data = pool.agent_dir(picky);
    digest(&pool.api.execute(&shards_of_one_kernel("mc", "picky")).await.body);
    let status = say("status", &data).await;
    assert_eq!(status["completed"], 0, "{status:#}");
    assert!(status["declined"].as_u64().unwrap() > 0, "it was offered nothing: {status:#}");
    assert_eq!(std::fs::read_dir(data.join("code")).unwrap().count(), 0);
    // Alone, it does what it may.
    pool.kill_agent(0).await;
    digest(&pool.api.execute(&shards_of_one_kernel("noop", "picky")).await.body);
    let status = say("status", &data).await;
    assert!(status["completed"].as_u64().unwrap() > 0, "{status:#}");
    assert_eq!(std::fs::read_dir(data.join("code")).unwrap().count(), 0, "a byte of disk holds no kernel");
    pool.stop().await;
}

#[tokio::test]
async fn outside_its_hours_an_agent_takes_nothing() {
    let mut pool = Pool::start(1).await;
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    // Hours away on either side: the test is over before they come.
    let hours = format!("{:02}:00-{:02}:00", (hour + 6) % 24, (hour + 9) % 24);
    let hub = pool.quic();
    let sleeper = pool.join_at(&hub, &["--hours", &hours]).await;
    seen(&pool, &["connected", "draining"]).await;
    let status = say("status", &pool.agent_dir(sleeper)).await;
    assert_eq!((&status["state"], &status["paused_by"]), (&json!("paused"), &json!(["hours"])), "{status:#}");
    digest(&pool.api.execute(&shards_of_one_kernel("mc", "sleeper")).await.body);
    assert_eq!(say("resume", &pool.agent_dir(sleeper)).await["completed"], 0);
    pool.stop().await;
}
