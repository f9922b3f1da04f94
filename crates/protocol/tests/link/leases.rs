//! Shards out, reports in.

use std::collections::BTreeSet;

use forge_contract::report::Outcome;
use forge_contract::trace::TraceContext;
use forge_contract::{Failure, FailureCode, LeaseId};
use forge_protocol::message::{FRAGMENT_BYTES_MAX, Progress, ReportHead, Signature};
use forge_protocol::{AgentEvent, Identity, LinkError, LinkEvent};

use crate::pair::{Hub, lease_of, report, soon, task};
use crate::raw;

#[tokio::test]
async fn a_report_comes_back_as_it_was_signed() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(7), task(3), 1234, TraceContext::default());
    let AgentEvent::Lease { lease, task: found, deadline, trace, mut responder } = soon(link.next()).await else {
        panic!()
    };
    assert_eq!(trace, TraceContext::default());
    assert_eq!((lease, &found, deadline.as_millis()), (LeaseId(7), &*task(3), 1234));

    responder.progress(1).await.unwrap();
    responder.progress(1).await.unwrap();
    responder.progress(3).await.unwrap();
    let sent = report(lease, &found, b"fragment".to_vec());
    let answering = tokio::spawn(responder.report(sent.clone()));
    for expected in [1, 3] {
        match hub.event().await {
            LinkEvent::Progress { session: of, lease: LeaseId(7), units_done } => {
                assert_eq!((of, units_done), (session, expected));
            }
            other => panic!("{other:?}"),
        }
    }
    match hub.event().await {
        LinkEvent::Report { session: of, report, .. } => assert_eq!((of, report), (session, sent)),
        other => panic!("{other:?}"),
    }
    soon(answering).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failure_comes_back_too() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(0), 1000, TraceContext::default());
    let (lease, found, responder) = lease_of(&mut link).await;
    let mut sent = report(lease, &found, vec![]);
    sent.outcome = Outcome::Failed(Failure::new(FailureCode::AgentTrap, "unreachable").in_unit(2));
    let (sent_copy, expected) = (sent.clone(), sent);
    tokio::spawn(responder.report(sent_copy));
    match hub.event().await {
        LinkEvent::Report { report, .. } => assert_eq!(report, expected),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_fragments_stream_through_small_windows() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    let bytes = 40 << 20;
    for lease in 0..8 {
        hub.endpoint.dispatch(session, LeaseId(lease), task(0), 60_000, TraceContext::default());
    }
    let mut answers = Vec::new();
    for _ in 0..8 {
        let (lease, found, responder) = lease_of(&mut link).await;
        let fragment = vec![u8::try_from(lease.0).unwrap(); bytes];
        answers.push(tokio::spawn(responder.report(report(lease, &found, fragment))));
    }
    // Eight times 40 MiB exceed the memory for fragments: the last wait until the first are taken.
    for _ in 0..8 {
        match hub.event().await {
            LinkEvent::Report { report, .. } => {
                let Outcome::Completed(completed) = report.outcome else { panic!() };
                assert_eq!(completed.fragment.len(), bytes);
                assert!(completed.fragment.iter().all(|byte| u64::from(*byte) == report.lease.0));
            }
            other => panic!("{other:?}"),
        }
    }
    for answer in answers {
        soon(answer).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_leases_than_streams_all_get_their_turn() {
    const LEASES: u64 = 2000;
    let (mut hub, mut link, session) = Hub::with_agent().await;
    for lease in 0..LEASES {
        hub.endpoint.dispatch(
            session,
            LeaseId(lease),
            task(u32::try_from(lease).unwrap()),
            60_000,
            TraceContext::default(),
        );
    }
    let agent = tokio::spawn(async move {
        for _ in 0..LEASES {
            let (lease, found, responder) = lease_of(&mut link).await;
            tokio::spawn(responder.report(report(lease, &found, vec![1])));
        }
        link
    });
    let mut seen = BTreeSet::new();
    while seen.len() < usize::try_from(LEASES).unwrap() {
        match hub.event().await {
            LinkEvent::Report { report, .. } => assert!(seen.insert(report.lease)),
            other => panic!("{other:?}"),
        }
    }
    drop(soon(agent).await.unwrap());
}

#[tokio::test]
async fn a_lease_taken_back_tells_the_agent_and_nobody_else() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(1), 1000, TraceContext::default());
    hub.endpoint.dispatch(session, LeaseId(2), task(2), 1000, TraceContext::default());
    let (mut kept, mut taken) = (None, None);
    for _ in 0..2 {
        let (lease, found, responder) = lease_of(&mut link).await;
        match lease {
            LeaseId(1) => taken = Some((found, responder)),
            _ => kept = Some((found, responder)),
        }
    }
    let ((found, responder), (other, other_responder)) = (taken.unwrap(), kept.unwrap());
    hub.endpoint.revoke(session, LeaseId(1));
    soon(responder.revoked()).await;
    let late = soon(responder.report(report(LeaseId(1), &found, vec![]))).await;
    assert!(matches!(late, Err(LinkError::Closed { .. })), "{late:?}");
    tokio::spawn(other_responder.report(report(LeaseId(2), &other, vec![])));
    match hub.event().await {
        LinkEvent::Report { report, .. } => assert_eq!(report.lease, LeaseId(2)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn broken(event: LinkEvent) -> (LeaseId, FailureCode, String) {
    match event {
        LinkEvent::LeaseBroken { lease, code, detail, .. } => (lease, code, detail),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_given_back_is_a_declined_one() {
    let (mut hub, mut link, session) = Hub::with_agent().await;
    hub.endpoint.dispatch(session, LeaseId(1), task(1), 1000, TraceContext::default());
    let (.., responder) = lease_of(&mut link).await;
    responder.decline();
    let (lease, code, _) = broken(hub.event().await);
    assert_eq!((lease, code), (LeaseId(1), FailureCode::AgentDeclined));
    hub.endpoint.dispatch(session + 1, LeaseId(2), task(1), 1000, TraceContext::default());
    let (lease, code, _) = broken(hub.event().await);
    assert_eq!((lease, code), (LeaseId(2), FailureCode::AgentLost));
}

/// One lease, answered with what `answer` makes of an honest report; gives why it broke.
async fn answered_with(answer: impl FnOnce(ReportHead, &Identity) -> (ReportHead, Vec<u8>)) -> String {
    let mut hub = Hub::new();
    let identity = hub.enrolled(9);
    let agent = raw::Agent::join(hub.address, [9; 32]).await;
    let session = hub.joined().await;
    hub.endpoint.dispatch(session, LeaseId(5), task(1), 1000, TraceContext::default());
    let (mut send, lease) = agent.lease().await;
    let honest = report(LeaseId(5), &lease.task, vec![1, 2, 3]);
    let signature = identity.sign_statement(&honest.statement());
    let (head, after) = answer(ReportHead::split(honest, signature).0, &identity);
    raw::say(&mut send, &head).await;
    send.write_all(&after).await.unwrap();
    let _ = send.finish();
    match hub.event().await {
        LinkEvent::LeaseBroken { session: of, lease, code, detail } => {
            assert_eq!((of, lease, code), (session, LeaseId(5), FailureCode::AgentProtocol));
            // The session goes on: its other leases are not to blame.
            assert_eq!(hub.endpoint.sessions(), 1);
            detail
        }
        LinkEvent::Report { .. } => "accepted".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_report_that_is_not_what_it_should_be_breaks_its_lease() {
    let fragment = || vec![1, 2, 3];
    assert_eq!(answered_with(|head, _| (head, fragment())).await, "accepted");
    let signature = "the report's signature is not the agent's";
    let forged = answered_with(|mut head, _| {
        head.signature = Signature([7; 64]);
        (head, fragment())
    });
    assert_eq!(forged.await, signature);
    assert_eq!(answered_with(|head, _| (head, vec![1, 2, 4])).await, signature);
    let refuelled = answered_with(|mut head, _| {
        if let forge_protocol::message::Ending::Completed { units, .. } = &mut head.ending {
            units[0].fuel += 1;
        }
        (head, fragment())
    });
    assert_eq!(refuelled.await, signature);
    let other_lease = answered_with(|mut head, _| {
        head.lease = LeaseId(6);
        (head, fragment())
    });
    assert_eq!(other_lease.await, "a report for lease 6 on the stream of lease 5");
    let other_task = answered_with(|head, identity| {
        let (mut report, _) = head.join(fragment());
        report.task = task(2).key_digest();
        let signature = identity.sign_statement(&report.statement());
        ReportHead::split(report, signature)
    });
    assert_eq!(other_task.await, "the report is for another task");
    assert_eq!(answered_with(|head, _| (head, vec![1, 2, 3, 4])).await, "bytes follow the report");
    assert_eq!(answered_with(|head, _| (head, vec![1, 2])).await, "the stream ended before its message did");
    let huge = answered_with(|mut head, _| {
        if let forge_protocol::message::Ending::Completed { fragment_bytes, .. } = &mut head.ending {
            *fragment_bytes = FRAGMENT_BYTES_MAX + 1;
        }
        (head, vec![])
    });
    assert!(huge.await.contains("exceeds"));
}

#[tokio::test]
async fn what_is_no_report_breaks_its_lease() {
    let mut hub = Hub::new();
    hub.enrolled(9);
    let agent = raw::Agent::join(hub.address, [9; 32]).await;
    let session = hub.joined().await;
    let cases: [(&[u8], &str); 5] = [
        (&raw::header(u32::MAX, 8), "exceeds"),
        (&raw::header(1, 77), "77 is not a kind"),
        (&raw::header(0, 5), "not legal here"),
        (&[2, 0, 0, 0, 7, 0xff, 0xff], "not its encoding"),
        (&[1, 0], "ended before"),
    ];
    for (number, (bytes, complaint)) in (1..).zip(cases) {
        hub.endpoint.dispatch(session, LeaseId(number), task(1), 1000, TraceContext::default());
        let (mut send, _) = agent.lease().await;
        send.write_all(bytes).await.unwrap();
        let _ = send.finish();
        let (lease, code, detail) = broken(hub.event().await);
        assert_eq!((lease, code), (LeaseId(number), FailureCode::AgentProtocol));
        assert!(detail.contains(complaint), "{detail}");
    }
    hub.endpoint.dispatch(session, LeaseId(9), task(1), 1000, TraceContext::default());
    let (mut send, _) = agent.lease().await;
    raw::say(&mut send, &Progress { units_done: 5 }).await;
    assert_eq!(broken(hub.event().await).2, "progress of 5 units after 0 of 4");
    hub.endpoint.dispatch(session, LeaseId(10), task(1), 1000, TraceContext::default());
    let (mut send, _) = agent.lease().await;
    send.reset(99u32.into()).unwrap();
    assert_eq!(broken(hub.event().await).1, FailureCode::AgentProtocol);
}
