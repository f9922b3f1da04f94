//! The wire, byte for byte: a change here breaks every agent that is out there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::{Checked, Completed, Finding, Outcome, Report, UnitRecord, UnitVerdict, Usage};
use forge_contract::seed::StageKey;
use forge_contract::task::{Cut, InputRef, Task};
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Capability, Digest, Failure, FailureCode, JobId, LeaseId};
use forge_protocol::frame::{self, FrameError, HEADER_BYTES, Header};
use forge_protocol::message::{
    Drain, Fetch, Have, Heartbeat, Hello, Kind, Lease, LeaseRef, Load, Message, Missing, Progress, RefusalCode,
    Refused, ReportHead, STANDING_EVENTS_MAX, STANDING_TEXT_BYTES_MAX, Signature, Standing, Welcome,
};
use forge_protocol::{ALPN, REVISION};
use proptest::prelude::*;

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn repeated(byte: &str) -> String {
    byte.repeat(32)
}

#[track_caller]
fn pinned<M: Message + PartialEq + core::fmt::Debug>(message: &M, expected: &[&str]) {
    let bytes = frame::encode(message).unwrap();
    assert_eq!(hex::encode(&bytes), expected.concat());
    let header = Header::read(*bytes.first_chunk().unwrap()).unwrap();
    assert_eq!(header, Header { kind: M::KIND, bytes: bytes.len() - HEADER_BYTES });
    assert_eq!(&frame::decode::<M>(&bytes[HEADER_BYTES..]).unwrap(), message);
}

#[test]
fn the_first_bytes() {
    assert_eq!(ALPN, b"forgepool/1");
    assert_eq!(REVISION, 3);
    assert_eq!(Kind::ALL.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert!(Kind::ALL.iter().all(|kind| Kind::of(*kind as u8) == Some(*kind)));
}

#[test]
fn hello() {
    let capability = Capability {
        cores: 4,
        leases: 8,
        memory_bytes: 1 << 30,
        arch: "x86_64".into(),
        os: "linux".into(),
        cpu: true,
        gpu: false,
        labels: vec!["eu".into()],
        projects: vec!["p1".into()],
        engine: digest(0xee),
        cage: "full".into(),
    };
    let hello = Hello { revision: 1, software: "fa".into(), capability, enrol_secret: Some([0x55; 32]) };
    let (engine, secret) = (repeated("ee"), repeated("55"));
    pinned(
        &hello,
        &[
            "6800000001",
            "01",
            "026661",
            "04",
            "08",
            "8080808004",
            "067838365f3634",
            "056c696e7578",
            "01",
            "00",
            "01026575",
            "01027031",
            &engine,
            "0466756c6c",
            "01",
            &secret,
        ],
    );
}

#[test]
fn control_messages() {
    let agent = AgentId(digest(0xaa));
    let welcome = Welcome { revision: 1, agent, session: 7, heartbeat_ms: 1000, leases_max: 512 };
    pinned(&welcome, &["2600000002", "01", &repeated("aa"), "07", "e807", "8004"]);
    let refused = Refused { code: RefusalCode::Token, detail: "no".into() };
    pinned(&refused, &["0400000003", "02", "026e6f"]);
    let load = Load { running: 2, waiting: 1, memory_free_bytes: 300 };
    pinned(&Heartbeat { load }, &["0400000004", "02", "01", "ac02"]);
    pinned(&Drain, &["0000000005"]);
}

#[test]
fn standing() {
    let standing = Standing {
        clean: 300,
        accepted: 301,
        audit_ppm: 50_000,
        quarantined: Some("q".into()),
        held_micro: 1,
        payable_micro: 2,
        forfeited_micro: 3,
        events: vec!["e".into(), "f".into()],
    };
    pinned(&standing, &["120000000c", "ac02", "ad02", "d08603", "010171", "01", "02", "03", "02", "0165", "0166"]);
    pinned(&Standing::default(), &["080000000c", "0000000000000000"]);
    let most = Standing {
        clean: u64::MAX,
        accepted: u64::MAX,
        audit_ppm: u32::MAX,
        quarantined: Some("\u{e9}".repeat(STANDING_TEXT_BYTES_MAX)),
        held_micro: u64::MAX,
        payable_micro: u64::MAX,
        forfeited_micro: u64::MAX,
        events: vec!["x\u{e9}\u{1b}".repeat(STANDING_TEXT_BYTES_MAX); STANDING_EVENTS_MAX + 1],
    };
    assert!(frame::encode(&most).is_err());
    let bounded = most.bounded();
    assert!(frame::encode(&bounded).is_ok());
    assert_eq!(bounded.events.len(), STANDING_EVENTS_MAX);
    assert!(!bounded.printable().events[0].contains('\u{1b}'));
}

#[test]
fn refusal_codes_are_stable() {
    use RefusalCode::{Draining, Malformed, NotEnrolled, Revision, Token, Unavailable};
    let codes = [Revision, NotEnrolled, Token, Malformed, Unavailable, Draining];
    let bytes = codes.map(|code| frame::encode(&Refused { code, detail: String::new() }).unwrap()[HEADER_BYTES]);
    assert_eq!(bytes, [0, 1, 2, 3, 4, 5]);
    let texts = codes.map(RefusalCode::as_str);
    assert_eq!(
        texts,
        ["wire.revision", "wire.not_enrolled", "wire.token", "wire.malformed", "wire.unavailable", "wire.draining"]
    );
}

fn task(unit: Option<String>) -> Task {
    Task {
        job: JobId::from_bits(3),
        stage_index: 1,
        shard: 2,
        component: digest(0xcc),
        component_bytes: 300,
        profile: "p.v1".into(),
        stage: "s".into(),
        args: "{}".into(),
        key: StageKey([0x11; 32]),
        cut: Cut::Items { total: 100, unit: 10 },
        first_unit: 4,
        unit_count: 2,
        limits: UnitLimits { fuel: 5, memory_bytes: 6, output_bytes: 7 },
        parts: vec![PartSpec {
            name: "loss".into(),
            kind: PartKind::Distribution,
            counts_items: true,
            shown: true,
            unit,
        }],
        inputs: vec![InputRef { name: "in".into(), digest: digest(0x22), bytes: 9 }],
        duty: Duty::Compute,
    }
}

#[test]
fn lease() {
    let trace = TraceContext { trace: [0x44; 16], span: [0x55; 8], sampled: true };
    let lease = Lease { lease: LeaseId(9), deadline_ms: 1000, trace, task: task(None) };
    let (component, key, input) = (repeated("cc"), repeated("11"), repeated("22"));
    let trace_bytes = ["44".repeat(16), "55".repeat(8), "01".to_owned()].concat();
    pinned(
        &lease,
        &[
            "a300000006",
            "09",
            "e807",
            &trace_bytes,
            "03",
            "01",
            "02",
            &component,
            "ac02",
            "04702e7631",
            "0173",
            "027b7d",
            &key,
            "00640a",
            "04",
            "02",
            "050607",
            "01046c6f7373",
            "05",
            "01",
            "01",
            "00",
            "0102696e",
            &input,
            "09",
            "00",
        ],
    );
    let shared = LeaseRef { lease: lease.lease, deadline_ms: lease.deadline_ms, trace, task: &lease.task };
    assert_eq!(frame::encode_as(Kind::Lease, &shared).unwrap(), frame::encode(&lease).unwrap());
    let named = Lease { task: task(Some("EUR".into())), ..lease.clone() };
    assert_eq!(frame::decode::<Lease>(&frame::encode(&named).unwrap()[HEADER_BYTES..]).unwrap(), named);

    // A check: what is found, its size, the challenge.
    let found = FoundRef { digest: digest(0x66), bytes: 300 };
    let duty = Duty::Check(Examination { found, challenge: Challenge([0x99; 32]) });
    let bytes = frame::encode(&Lease { task: Task { duty, ..lease.task.clone() }, ..lease.clone() }).unwrap();
    let same = frame::encode(&lease).unwrap();
    assert_eq!(bytes[HEADER_BYTES..bytes.len() - 67], same[HEADER_BYTES..same.len() - 1]);
    assert_eq!(hex::encode(&bytes[bytes.len() - 67..]), ["01", &repeated("66"), "ac02", &repeated("99")].concat());
    assert_eq!(frame::decode::<Lease>(&bytes[HEADER_BYTES..]).unwrap().task.duty, duty);
}

#[test]
fn answers() {
    pinned(&Progress { units_done: 300 }, &["0200000007", "ac02"]);
    let base = Report {
        lease: LeaseId(9),
        task: digest(0x33),
        engine: digest(0xee),
        outcome: Outcome::Completed(Completed {
            fragment: vec![1, 2, 3],
            units: vec![UnitRecord { digest: digest(0x44), fuel: 300 }],
        }),
        usage: Usage { wall_us: 1, cpu_us: 2, prepare_us: 3 },
        log: "hi".into(),
    };
    let signature = Signature([0x77; 64]);
    let (head, fragment) = ReportHead::split(base.clone(), signature);
    assert_eq!(fragment, [1, 2, 3]);
    let (task, engine, unit, half) = (repeated("33"), repeated("ee"), repeated("44"), repeated("77"));
    pinned(
        &head,
        &["ac00000008", "09", &task, &engine, "00", "03", "01", &unit, "ac02", "010203", "026869", &half, &half],
    );
    assert_eq!(head.join(fragment), (base.clone(), signature));

    let failure = Failure::new(FailureCode::AgentTrap, "x").in_unit(5);
    let failed = Report { outcome: Outcome::Failed(failure), log: String::new(), ..base };
    let (head, fragment) = ReportHead::split(failed.clone(), signature);
    assert!(fragment.is_empty());
    let code = hex::encode("agent.trap");
    pinned(
        &head,
        &["9600000008", "09", &task, &engine, "01", "0a", &code, "0178", "00", "0105", "010203", "00", &half, &half],
    );
    assert_eq!(head.join(fragment), (failed, signature));
}

#[test]
fn verdicts() {
    let findings = [Finding::Sound { error: 0.5 }, Finding::Wrong { reason: "no".into() }];
    let units = findings.map(|finding| UnitVerdict { finding, fuel: 300 }).into();
    let checked = Report {
        lease: LeaseId(9),
        task: digest(0x33),
        engine: digest(0xee),
        outcome: Outcome::Checked(Checked { units }),
        usage: Usage { wall_us: 1, cpu_us: 2, prepare_us: 3 },
        log: String::new(),
    };
    let signature = Signature([0x77; 64]);
    let (head, fragment) = ReportHead::split(checked.clone(), signature);
    assert!(fragment.is_empty());
    assert_eq!(head.fragment_bytes(), 0);
    let (task, engine, half) = (repeated("33"), repeated("ee"), repeated("77"));
    pinned(
        &head,
        &[
            "9800000008",
            "09",
            &task,
            &engine,
            "02",
            "02",
            "00000000000000e03fac02",
            "01026e6fac02",
            "010203",
            "00",
            &half,
            &half,
        ],
    );
    assert_eq!(head.join(fragment), (checked, signature));
}

#[test]
fn transfers() {
    pinned(&Fetch { digest: digest(0xdd), offset: 300 }, &["2200000009", &repeated("dd"), "ac02"]);
    pinned(&Have { bytes: 300 }, &["020000000a", "ac02"]);
    pinned(&Missing, &["000000000b"]);
}

#[test]
fn a_length_is_refused_before_anything_is_reserved() {
    for kind in Kind::ALL {
        let max = u32::try_from(kind.bytes_max()).unwrap();
        let header = |bytes: u32| {
            let [a, b, c, d] = bytes.to_le_bytes();
            Header::read([a, b, c, d, kind as u8])
        };
        assert_eq!(header(max), Ok(Header { kind, bytes: kind.bytes_max() }));
        let (bytes, max) = (u64::from(max) + 1, u64::from(max));
        assert_eq!(header(u32::try_from(bytes).unwrap()), Err(FrameError::TooLong { kind, bytes, max }));
        assert!(header(u32::MAX).is_err());
    }
    assert_eq!(Header::read([0, 0, 0, 0, 13]), Err(FrameError::UnknownKind { number: 13 }));
    assert_eq!(Header::read([0; 5]), Err(FrameError::UnknownKind { number: 0 }));
}

#[test]
fn what_is_sent_is_held_to_the_same_sizes() {
    let detail = "x".repeat(Kind::Refused.bytes_max());
    let refused = frame::encode(&Refused { code: RefusalCode::Token, detail });
    assert!(matches!(refused, Err(FrameError::TooLong { kind: Kind::Refused, .. })));
}

#[test]
fn bytes_after_a_message_are_refused() {
    assert!(frame::decode::<Progress>(&[1]).is_ok());
    assert_eq!(frame::decode::<Progress>(&[1, 0]), Err(FrameError::Malformed { kind: Kind::Progress }));
    assert_eq!(frame::decode::<Drain>(&[0]), Err(FrameError::Malformed { kind: Kind::Drain }));
}

#[test]
fn the_largest_legal_report_fits_its_maximum() {
    use forge_contract::limits::{LOG_BYTES_MAX, SHARD_UNITS_MAX};
    let units = vec![UnitRecord { digest: digest(1), fuel: u64::MAX }; usize::try_from(SHARD_UNITS_MAX).unwrap()];
    let report = Report {
        lease: LeaseId(u64::MAX),
        task: digest(1),
        engine: digest(2),
        outcome: Outcome::Completed(Completed { fragment: vec![0], units }),
        usage: Usage { wall_us: u64::MAX, cpu_us: u64::MAX, prepare_us: u64::MAX },
        log: "x".repeat(LOG_BYTES_MAX),
    };
    let (head, _) = ReportHead::split(report.clone(), Signature([0; 64]));
    assert!(frame::encode(&head).is_ok());

    // Reasons of the greatest length together, one per unit as far as they go, then empty ones.
    let wrong = |reason: String| UnitVerdict { finding: Finding::Wrong { reason }, fuel: u64::MAX };
    let mut checked = Checked { units: vec![wrong("x".repeat(100)); usize::try_from(SHARD_UNITS_MAX).unwrap()] };
    checked.shorten();
    let (head, _) = ReportHead::split(Report { outcome: Outcome::Checked(checked), ..report }, Signature([0; 64]));
    assert!(frame::encode(&head).is_ok());
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, header: [u8; HEADER_BYTES]) {
        let _ = Header::read(header);
        let _ = frame::decode::<Hello>(&bytes);
        let _ = frame::decode::<Welcome>(&bytes);
        let _ = frame::decode::<Refused>(&bytes);
        let _ = frame::decode::<Heartbeat>(&bytes);
        let _ = frame::decode::<Drain>(&bytes);
        let _ = frame::decode::<Lease>(&bytes);
        let _ = frame::decode::<Progress>(&bytes);
        let _ = frame::decode::<ReportHead>(&bytes);
        let _ = frame::decode::<Fetch>(&bytes);
        let _ = frame::decode::<Have>(&bytes);
        let _ = frame::decode::<Missing>(&bytes);
        let _ = frame::decode::<Standing>(&bytes);
    }

    #[test]
    fn a_cut_or_changed_lease_never_panics(cut in 0usize..185, at in 0usize..175, flip: u8) {
        let trace = TraceContext::default();
        let lease = Lease { lease: LeaseId(9), deadline_ms: 1000, trace, task: task(Some("EUR".into())) };
        let mut bytes = frame::encode(&lease).unwrap().split_off(HEADER_BYTES);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        bytes.truncate(cut);
        let _ = frame::decode::<Lease>(&bytes);
    }

    #[test]
    fn any_report_survives_the_wire(fragment: Vec<u8>, fuels in prop::collection::vec(any::<u64>(), 0..20), log: String) {
        let units = fuels.iter().map(|fuel| UnitRecord { digest: Digest::of(&fuel.to_le_bytes()), fuel: *fuel }).collect();
        let report = Report {
            lease: LeaseId(1),
            task: digest(1),
            engine: digest(2),
            outcome: Outcome::Completed(Completed { fragment, units }),
            usage: Usage::default(),
            log,
        };
        let (head, fragment) = ReportHead::split(report.clone(), Signature([3; 64]));
        prop_assert_eq!(head.fragment_bytes(), fragment.len() as u64);
        let bytes = frame::encode(&head).unwrap();
        let (found, _) = frame::decode::<ReportHead>(&bytes[HEADER_BYTES..]).unwrap().join(fragment);
        prop_assert_eq!(found, report);
    }

    #[test]
    fn any_verdicts_survive_the_wire(found in prop::collection::vec((any::<Option<String>>(), 0.0..=1.0f64, any::<u64>()), 0..20)) {
        let finding = |(reason, error): (Option<String>, f64)| match reason {
            Some(reason) => Finding::Wrong { reason },
            None => Finding::Sound { error },
        };
        let units = found.into_iter().map(|(reason, error, fuel)| UnitVerdict { finding: finding((reason, error)), fuel });
        let report = Report {
            lease: LeaseId(1),
            task: digest(1),
            engine: digest(2),
            outcome: Outcome::Checked(Checked { units: units.collect() }),
            usage: Usage::default(),
            log: String::new(),
        };
        let (head, fragment) = ReportHead::split(report.clone(), Signature([3; 64]));
        let bytes = frame::encode(&head).unwrap();
        let (found, _) = frame::decode::<ReportHead>(&bytes[HEADER_BYTES..]).unwrap().join(fragment);
        prop_assert_eq!(found, report);
    }
}
