//! Bad input 31 and 37-40 of the security design: an enrolled agent that answers its leases badly. Each lie is a record
//! with a stable code at its own lease, and the job's result is the one that honest agents give.

use forge_contract::report::{Completed, Outcome, Report};
use forge_contract::{Digest, LeaseId};
use forge_protocol::frame;
use forge_protocol::message::{Ending, ReportHead, Signature};
use forge_sandbox::local::LocalKernel;
use forge_tests::pool::Pool;
use serde_json::{Value, json};

use crate::answers::digest;
use crate::stranger::{Granted, Stranger, counting_kernel};

fn contract(seed: usize) -> Value {
    json!({
        "ctx": { "job_id": format!("lies-{seed}") },
        "op": { "name": "noop", "version": 1, "profile": "count.v1" },
        "seed": { "mode": "derived" },
        "policy": { "verify": "none", "shards": 64, "max_agents": 0 },
        "args": { "units": 4096 }
    })
}

/// A way to answer a lease.
type Lie = fn(&Stranger, &LocalKernel, &Granted) -> Vec<u8>;

fn framed(head: &ReportHead, fragment: &[u8]) -> Vec<u8> {
    let mut bytes = frame::encode(head).unwrap();
    bytes.extend_from_slice(fragment);
    bytes
}

/// The honest report, changed and then signed.
fn changed(stranger: &Stranger, kernel: &LocalKernel, granted: &Granted, change: impl FnOnce(&mut Report)) -> Vec<u8> {
    let mut report = stranger.honest(kernel, granted);
    change(&mut report);
    let (head, fragment) = stranger.signed(report);
    framed(&head, &fragment)
}

fn completed(report: &mut Report) -> &mut Completed {
    match &mut report.outcome {
        Outcome::Completed(completed) => completed,
        other => panic!("{other:?}"),
    }
}

/// The lie, the code it is recorded with, and a word of the detail.
const LIES: [(&str, Lie, &str, &str); 11] = [
    (
        "37 a stale fence",
        |s, k, g| changed(s, k, g, |report| report.lease = LeaseId(report.lease.0 - 1)),
        "agent.protocol",
        "on the stream of lease",
    ),
    (
        "38 a signature of other words",
        |s, k, g| {
            let (mut head, fragment) = s.signed(s.honest(k, g));
            head.signature = Signature([7; 64]);
            framed(&head, &fragment)
        },
        "agent.protocol",
        "signature",
    ),
    (
        "38 another agent's signature",
        |s, k, g| {
            let report = s.honest(k, g);
            let other = forge_protocol::Identity::from_seed(&[250; 32]).sign_statement(&report.statement());
            let (head, fragment) = ReportHead::split(report, other);
            framed(&head, &fragment)
        },
        "agent.protocol",
        "signature",
    ),
    (
        "38 a stranger's shard",
        |s, k, g| changed(s, k, g, |report| report.task = Digest::of(b"another shard")),
        "agent.protocol",
        "another task",
    ),
    (
        "39 two reports for one lease",
        |s, k, g| {
            let once = changed(s, k, g, |_| {});
            [once.clone(), once].concat()
        },
        "agent.protocol",
        "follow the report",
    ),
    (
        "40 more output than there may be",
        |s, k, g| {
            let (mut head, _) = s.signed(s.honest(k, g));
            if let Ending::Completed { fragment_bytes, .. } = &mut head.ending {
                *fragment_bytes = 1 << 40;
            }
            framed(&head, &[])
        },
        "agent.protocol",
        "exceeds",
    ),
    (
        "40 a fragment that is none",
        |s, k, g| changed(s, k, g, |report| completed(report).fragment = vec![0xff; 64]),
        "verification.structure",
        "",
    ),
    (
        "40 fuel above the budget",
        |s, k, g| changed(s, k, g, |report| completed(report).units[0].fuel = u64::MAX),
        "verification.structure",
        "fuel",
    ),
    (
        "40 fewer units than asked for",
        |s, k, g| changed(s, k, g, |report| completed(report).units.truncate(1)),
        "verification.structure",
        "",
    ),
    (
        "40 another engine than announced",
        |s, k, g| changed(s, k, g, |report| report.engine = Digest::of(b"another engine")),
        "agent.protocol",
        "engine",
    ),
    ("40 half a message", |s, k, g| changed(s, k, g, |_| {})[..20].to_vec(), "agent.protocol", "ended"),
];

/// The stranger's attempts with the code they ended with.
async fn record(pool: &Pool, job: &str, stranger: &Stranger) -> Vec<(u64, String, String)> {
    let executions = pool.api.get(&format!("/api/v0/jobs/{job}/executions?limit=1000")).await;
    let items = executions.body["items"].as_array().unwrap_or_else(|| panic!("{}", executions.text)).clone();
    let own = items.iter().filter(|attempt| attempt["agent_id"] == stranger.agent.to_string().as_str());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    own.map(|attempt| (attempt["lease"].as_u64().unwrap(), text(&attempt["code"]), text(&attempt["detail"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_recorded_by_its_code_and_changes_nothing() {
    let kernel = counting_kernel();
    let mut pool = Pool::start(1).await;
    let expected = digest(&pool.api.execute(&contract(0)).await.body);
    for (number, (what, lie, code, words)) in LIES.into_iter().enumerate() {
        let stranger = Stranger::join(&mut pool, u8::try_from(100 + number).unwrap()).await;
        let job = pool.api.submit(&contract(number)).await;
        let mut granted = stranger.granted().await;
        let lease = granted.lease.lease.0;
        granted.say(&lie(&stranger, &kernel, &granted)).await;
        // Its other leases are lost with it.
        forge_tests::until("verdict on the lie", || async {
            let own = record(&pool, &job, &stranger).await;
            let found = own.into_iter().find(|(of, ..)| *of == lease)?;
            assert_eq!(found.1, code, "{what}: {found:?}");
            assert!(found.2.contains(words), "{what}: {found:?}");
            Some(())
        })
        .await;
        stranger.connection.close(0_u32.into(), b"");
        assert_eq!(digest(&pool.api.finished(&job).await), expected, "{what}");
    }
    pool.stop().await;
}

/// 31: the stream is reset, or the connection closed, in the middle of a fragment.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_breaks_off_is_a_failed_attempt() {
    let kernel = counting_kernel();
    let mut pool = Pool::start(1).await;
    let expected = digest(&pool.api.execute(&contract(0)).await.body);
    for (seed, hard, code) in [(200, false, "agent.protocol"), (201, true, "agent.lost")] {
        let stranger = Stranger::join(&mut pool, seed).await;
        let job = pool.api.submit(&contract(seed.into())).await;
        let mut granted = stranger.granted().await;
        let lease = granted.lease.lease.0;
        let bytes = changed(&stranger, &kernel, &granted, |_| {});
        granted.answer.write_all(&bytes[..bytes.len() - 3]).await.unwrap();
        if hard {
            stranger.connection.close(99_u32.into(), b"gone");
        } else {
            granted.answer.reset(99_u32.into()).unwrap();
        }
        forge_tests::until("end of the attempt", || async {
            let own = record(&pool, &job, &stranger).await;
            let found = own.into_iter().find(|(of, ..)| *of == lease)?;
            assert_eq!(found.1, code, "{found:?}");
            Some(())
        })
        .await;
        stranger.connection.close(0_u32.into(), b"");
        assert_eq!(digest(&pool.api.finished(&job).await), expected);
    }
    pool.stop().await;
}

/// 37: a lease that ran out. The hub stops the stream; what is said on it afterwards reaches nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_for_an_expired_lease_is_discarded() {
    let kernel = counting_kernel();
    let mut pool = Pool::start_with(1, &["--lease-ms", "300"]).await;
    let expected = digest(&pool.api.execute(&contract(0)).await.body);
    let stranger = Stranger::join(&mut pool, 220).await;
    let job = pool.api.submit(&contract(1)).await;
    let mut granted = stranger.granted().await;
    let lease = granted.lease.lease.0;
    let stopped = forge_tests::within("end of the lease", granted.answer.stopped()).await.unwrap();
    assert!(stopped.is_some(), "the hub did not take the lease back");
    let report = changed(&stranger, &kernel, &granted, |_| {});
    granted.say(&report).await;
    assert_eq!(digest(&pool.api.finished(&job).await), expected);
    let own = record(&pool, &job, &stranger).await;
    let found = own.iter().filter(|(of, ..)| *of == lease).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "one lease, one end: {found:?}");
    // Run out, or taken back because a copy elsewhere was quicker.
    assert!(["agent.deadline", ""].contains(&found[0].1.as_str()), "{found:?}");
    stranger.connection.close(0_u32.into(), b"");
    pool.stop().await;
}
