//! What becomes of leases.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forge_contract::fragment::{Fragment, Part};
use forge_contract::report::Outcome;
use forge_contract::task::InputRef;
use forge_contract::{Digest, FailureCode, JobId};
use forge_protocol::LinkEvent;

use crate::hub::{Hub, noop, spin, task};
use crate::process::Agent;

/// Fuel for hours.
const ENDLESS: u64 = 1 << 50;

#[tokio::test]
async fn shards_are_computed_and_the_kernel_is_fetched_once() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    let LinkEvent::Joined { capability, .. } = hub.joined().await else { panic!() };
    assert_eq!((capability.cores, capability.leases), (1, 3));
    assert_eq!(capability.engine, forge_sandbox::engine_profile());
    let task = noop(&hub);
    let leases: Vec<_> = (0..20).map(|_| hub.grant(&task)).collect();
    let mut digests = Vec::new();
    for _ in &leases {
        let report = hub.report().await;
        assert!(leases.contains(&report.lease));
        assert_eq!((report.task, report.engine), (task.key_digest(), capability.engine));
        let Outcome::Completed(completed) = report.outcome else { panic!("{report:?}") };
        assert_eq!(completed.units.len(), 8);
        digests.push(completed.result_digest());
        let fragment = Fragment::decode(&completed.fragment).unwrap();
        assert_eq!(fragment.part("work"), Some(&Part::Count(8)));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(hub.record.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_be_had_fails_its_shard_alone() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    hub.joined().await;

    let mut missing = noop(&hub);
    missing.component = Digest::of(b"nobody has this");
    hub.grant(&missing);
    let failure = hub.failure().await;
    assert_eq!(failure.code, FailureCode::AgentFetch);
    assert!(failure.detail.contains("no object"), "{failure}");

    let mut corrupt = noop(&hub);
    corrupt.component = Digest::of(b"something else");
    hub.record.put(corrupt.component, b"not this".to_vec());
    hub.grant(&corrupt);
    let failure = hub.failure().await;
    assert_eq!(failure.code, FailureCode::AgentFetch);
    assert!(failure.detail.contains("another digest"), "{failure}");

    let garbage = task(&hub, b"\x7fELF is no component".to_vec());
    hub.grant(&garbage);
    assert_eq!(hub.failure().await.code, FailureCode::AgentCompile);

    let mut hungry = noop(&hub);
    hungry.inputs = vec![InputRef { name: "data".into(), digest: Digest::of(b"no such input"), bytes: 4 }];
    hub.grant(&hungry);
    assert_eq!(hub.failure().await.code, FailureCode::AgentFetch);

    let honest = noop(&hub);
    hub.grant(&honest);
    assert!(matches!(hub.report().await.outcome, Outcome::Completed(_)));
}

#[tokio::test]
async fn a_shard_taken_back_frees_its_seat_for_the_next_job() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    hub.joined().await;
    let endless = spin(&hub, ENDLESS);
    let lease = hub.grant(&endless);
    hub.running(1).await;
    let honest = noop(&hub);
    hub.grant(&honest);
    hub.endpoint.revoke(hub.session, lease);
    let report = hub.report().await;
    assert_eq!(report.task, honest.key_digest());
    assert!(matches!(report.outcome, Outcome::Completed(_)));
}

#[tokio::test]
async fn a_shard_past_its_deadline_and_one_out_of_fuel_say_so() {
    let mut hub = Hub::new();
    let _agent = Agent::start(&hub);
    hub.joined().await;
    let short = spin(&hub, 1_000_000);
    hub.grant(&short);
    let failure = hub.failure().await;
    assert_eq!((failure.code, failure.unit), (FailureCode::AgentFuelExhausted, Some(0)));
    let endless = spin(&hub, ENDLESS);
    hub.grant_for(&endless, Duration::from_millis(500));
    assert_eq!(hub.failure().await.code, FailureCode::AgentDeadline);
    // The seat's worker died with it; another sits there now.
    hub.grant(&short);
    assert_eq!(hub.failure().await.code, FailureCode::AgentFuelExhausted);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_worker_that_is_killed_fails_its_shard_and_is_replaced() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut hub = Hub::new();
    let agent = Agent::start(&hub);
    hub.joined().await;
    let endless = spin(&hub, ENDLESS);
    hub.grant(&endless);
    hub.running(1).await;
    for worker in agent.workers() {
        // Killing one may end others before their turn.
        let _ = kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL);
    }
    assert_eq!(hub.failure().await.code, FailureCode::AgentWorkerLost);
    let mut honest = noop(&hub);
    for job in 10..14 {
        honest.job = JobId::from_bits(job);
        hub.grant(&honest);
        let outcome = hub.report().await.outcome;
        assert!(matches!(outcome, Outcome::Completed(_)), "{outcome:?}");
    }
}
