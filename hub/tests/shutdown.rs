//! How a hub ends: requests that wait get an answer, streams end with an event, agents are told, and what was
//! acknowledged is there at the next start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use rustix::process::Signal;
use support::{Hub, Script, answer, contract};

/// An agent that answers nothing: jobs wait.
fn silent() -> Script {
    Script { answers_max: Some(0), ..Script::default() }
}

#[tokio::test]
async fn everybody_who_waits_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    let agent = hub.agent(silent()).await;
    let accepted = answer(hub.execute(&contract(4)).header("prefer", "respond-async")).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let job = accepted.body["job_id"].as_str().unwrap().to_owned();
    let mut stream = hub.get(&format!("/api/v0/jobs/{job}/events")).send().await.unwrap();
    let mut said = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let waiting = tokio::spawn(answer(hub.execute(&contract(5))));
    // Both jobs are there before the signal: the one that is waited for as well.
    while answer(hub.get("/api/v0/jobs")).await.body["items"].as_array().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    hub.signal(Signal::TERM);
    let told = waiting.await.unwrap();
    assert_eq!((told.status, told.body["code"].as_str()), (503, Some("scheduling.shutdown")), "{}", told.body);
    let second = told.body["job_id"].as_str().unwrap().to_owned();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        said += std::str::from_utf8(&chunk).unwrap();
    }
    let last = said.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("event: stopping") && last.contains("scheduling.shutdown"), "{said}");
    // The agent's session is over.
    drop(agent);
    assert_eq!(hub.end().code(), Some(0));

    let hub = Hub::start(folder.path(), &[]);
    let _agent = hub.agent(Script::default()).await;
    for job in [job, second] {
        let mut stream = hub.get(&format!("/api/v0/jobs/{job}/events")).send().await.unwrap();
        while stream.chunk().await.unwrap().is_some() {}
        let state = answer(hub.get(&format!("/api/v0/jobs/{job}"))).await;
        assert_eq!(state.body["status"], "COMPLETED", "{}", state.body);
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[]);
    // A body that never ends keeps the first end waiting.
    let address = hub.ready["http"].as_str().unwrap().to_owned();
    let mut open = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /api/v0/ops/execute HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{",
        hub.key
    );
    std::io::Write::write_all(&mut open, head.as_bytes()).unwrap();
    // Answered behind it: the head has been read.
    assert_eq!(answer(hub.get("/readyz")).await.status, 200);
    hub.signal(Signal::TERM);
    hub.signal(Signal::INT);
    assert_eq!(hub.end().code(), Some(1));
    // Its directory is free, and nothing in it is broken.
    let hub = Hub::start(folder.path(), &[]);
    assert_eq!(answer(hub.get("/readyz")).await.status, 200);
}
