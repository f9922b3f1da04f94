//! What an agent may fetch: what its own leases need.

use forge_contract::Digest;
use forge_protocol::frame;
use forge_protocol::message::{Fetch, Have, Message, Missing};
use forge_protocol::proof::Span;
use forge_tests::contract::{changed, insurance};
use forge_tests::npy::Matrix;
use forge_tests::peer;
use forge_tests::pool::Pool;
use serde_json::json;

use crate::stranger::Stranger;

/// The hub's answer to an agent that asks for content.
async fn asked<M: Message>(stranger: &Stranger, digest: &Digest) -> Option<M> {
    let (mut send, mut recv) = stranger.connection.open_bi().await.unwrap();
    send.write_all(&frame::encode(&Fetch { digest: *digest, spans: vec![Span::ALL] }).unwrap()).await.unwrap();
    send.finish().unwrap();
    forge_tests::within("answer", peer::hear(&mut recv)).await.ok()
}

/// Two jobs in hand: one that the agent may not run, one of which it holds a lease. It gets what the second reads.
#[tokio::test]
async fn an_agent_fetches_what_its_own_leases_need() {
    let mut pool = Pool::start_with(0, &["--no-agents-ms", "600000"]).await;
    let [others, own] = [1, 2].map(|seed| Matrix::<f64>::random(seed, 4, 4).file());
    let (of_others, of_own) = (Digest::of(&others), Digest::of(&own));
    for content in [others, own.clone()] {
        pool.api.put_blob(content).await;
    }
    let job = |digest: &Digest, labels: &[&str]| {
        let op = json!({"name": "gemm", "version": 1, "profile": "dgemm"});
        let args = json!({"m": 4, "n": 4, "k": 4, "a": digest, "b": digest});
        let policy = json!({"verify": "none", "labels": labels});
        changed(insurance(1), &[("/op", op), ("/args", args), ("/policy", policy)])
    };
    let closed = pool.api.submit(&job(&of_others, &["elsewhere"])).await;
    let open = pool.api.submit(&job(&of_own, &[])).await;
    let stranger = Stranger::join(&mut pool, 9).await;
    let granted = stranger.granted().await;
    assert_eq!(granted.lease.task.job.to_string(), open);
    for digest in [of_own, granted.lease.task.component] {
        assert!(asked::<Have>(&stranger, &digest).await.is_some(), "{digest} is needed");
    }
    assert_eq!(asked::<Have>(&stranger, &of_own).await.unwrap().bytes, own.len() as u64);
    assert!(asked::<Missing>(&stranger, &of_others).await.is_some(), "another lease's input is not there for it");
    assert!(asked::<Missing>(&stranger, &Digest::of(b"nothing")).await.is_some());
    for job in [closed, open] {
        pool.api.cancel(&job).await;
    }
    pool.stop().await;
}
