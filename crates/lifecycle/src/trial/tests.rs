#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_truncation)]
use std::collections::BTreeMap;

use forge_contract::Capability;
use forge_contract::fragment::{Named, Part};
use forge_contract::manifest::{Golden, Manifest};
use forge_contract::report::Usage;
use serde_json::json;

use super::*;
use crate::action::Action;
use crate::event::{Event, SessionId};
use crate::pool::{Pool, Settings};

fn count(items: u64) -> Vec<u8> {
    Fragment { parts: vec![Named { name: "work".into(), part: Part::Count(items) }] }.encode()
}

/// A kernel with two profiles; `goldens` of the first, one of the second.
fn kernel(goldens: Vec<Golden>) -> Kernel {
    let profile = json!({
        "summary": "s",
        "args": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "default": 30}}},
        "stages": [{
            "name": "count", "split": {"range": {"total": "n", "unit": 10}},
            "parts": [{"name": "work", "kind": "count", "counts_items": true}],
            "limits": {"fuel": 1_000_000_000, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 50
        }]
    });
    let manifest = json!({
        "name": "acme/k", "version": 1, "interface": forge_contract::manifest::INTERFACE, "summary": "s",
        "profiles": {"a": profile.clone(), "b": profile}
    });
    let mut manifest: Manifest = serde_json::from_value(manifest).unwrap();
    manifest.profiles.get_mut("a").unwrap().goldens = goldens;
    manifest.profiles.get_mut("b").unwrap().goldens = vec![golden(25, 2, 5)];
    Kernel { digest: Digest::of(b"component"), bytes: 9, manifest }
}

/// A golden of unit `unit` of `n` items, which counts `items`.
fn golden(n: u64, unit: u64, items: u64) -> Golden {
    let value = json!({
        "stage": "count", "args": {"n": n}, "seed": "s", "unit": unit, "digest": Digest::of(&count(items)), "fuel": 70
    });
    serde_json::from_value(value).unwrap()
}

#[test]
fn goldens_become_units_with_their_defaults_and_limits() {
    let mut plain = golden(30, 0, 10);
    plain.args = json!({});
    let exams = exams(&kernel(vec![plain, golden(25, 1, 10)]), TrialId(7)).unwrap();
    assert_eq!(exams.len(), 3);
    let task = &exams[0].task;
    assert_eq!(
        (task.args.as_str(), task.first_unit, task.unit_count, task.job),
        (r#"{"n":30}"#, 0, 1, JobId::from_bits(7))
    );
    assert_eq!(task.limits.fuel, 1_000_140, "cut off soon after what the golden says");
    assert_eq!(exams[2].place(), "profile 'b', stage 'count', unit 2");
    assert_eq!(exams[2].task.key, forge_contract::seed::RootSeed::explicit("s").stage_key("count"));
}

#[test]
fn goldens_that_cannot_be_run_are_named() {
    let of = |goldens: Vec<Golden>| exams(&kernel(goldens), TrialId(0)).unwrap_err().to_string();
    assert_eq!(
        of(vec![golden(30, 0, 10), golden(30, 3, 10)]),
        "/profiles/a/goldens/1: unit: there is no unit 3, the stage has 3"
    );
    assert!(of(vec![golden(0, 0, 1)]).starts_with("/profiles/a/goldens/0: args.n: expected an integer, at least 1"));
    let stage = Golden { stage: "other".into(), ..golden(30, 0, 10) };
    assert_eq!(of(vec![stage]), "/profiles/a/goldens/0: there is no stage 'other'");
    assert!(of(vec![golden(30, 0, 10); 64]).contains("65 goldens, at most 64"));
    let long = Golden { fuel: GOLDENS_FUEL_MAX, ..golden(30, 0, 10) };
    assert!(of(vec![long]).contains("fuel together"));
    let bare = every_profile_has_one(&kernel(vec![]).manifest).unwrap_err();
    assert_eq!(bare, GoldenError::Missing { profile: "a".into() });
    assert!(bare.to_string().contains("forgepool kernel check --record"));
    every_profile_has_one(&kernel(vec![golden(30, 0, 10)]).manifest).unwrap();
}

fn capability() -> Capability {
    Capability {
        cores: 1,
        leases: 2,
        memory_bytes: 1 << 30,
        arch: "x".into(),
        os: "x".into(),
        cpu: true,
        gpu: false,
        labels: vec![],
        projects: vec![],
        engine: Digest::of(b"engine"),
        cage: "x".into(),
    }
}

fn id(number: u8) -> AgentId {
    AgentId::of_public_key(&[number; 32])
}

type Given = (LeaseId, AgentId, SessionId, Arc<Task>);

/// A pool driven by hand.
struct Hand {
    pool: Pool,
    now: u64,
    ended: BTreeMap<TrialId, TrialVerdict>,
    revoked: Vec<LeaseId>,
}

impl Hand {
    fn new() -> Self {
        let pool = Pool::new(Settings { attempts_max: 3, ..Settings::default() });
        Self { pool, now: 1_000, ended: BTreeMap::new(), revoked: Vec::new() }
    }

    fn tell(&mut self, event: Event) -> Vec<Given> {
        let (mut actions, mut given) = (Vec::new(), Vec::new());
        self.pool.apply(self.now, event, &mut actions);
        for action in actions {
            match action {
                Action::Dispatch { lease, agent, session, task, .. } => given.push((lease, agent, session, task)),
                Action::TrialEnded { trial, verdict } => {
                    assert!(self.ended.insert(trial, *verdict).is_none(), "{trial:?} ended twice");
                }
                Action::Revoke { lease, .. } => self.revoked.push(lease),
                Action::Record(_) => {}
                other => panic!("{other:?}"),
            }
        }
        given
    }

    fn join(&mut self, agent: u8, session: u64, verifier: bool) -> Vec<Given> {
        let session = SessionId(session);
        let membership = crate::member::Membership { verifier, ..Default::default() };
        self.tell(Event::AgentJoined { agent: id(agent), session, capability: capability(), membership })
    }

    fn request(&mut self, number: u64, goldens: Vec<Golden>) -> Vec<Given> {
        let trial = TrialId(number);
        let exams = exams(&kernel(goldens), trial).unwrap();
        self.tell(Event::TrialRequested { trial, exams, grounds: Grounds::default() })
    }

    fn answer(&mut self, given: &Given, outcome: Outcome) -> Vec<Given> {
        let (lease, _, session, task) = given;
        let (task, engine) = (task.key_digest(), Digest::of(b"engine"));
        let report = Report { lease: *lease, task, engine, outcome, usage: Usage::default(), log: String::new() };
        self.tell(Event::ReportArrived { session: *session, report })
    }

    fn fail(&mut self, given: &Given, code: FailureCode) -> Vec<Given> {
        self.answer(given, Outcome::Failed(Failure::new(code, "it did not work")))
    }

    /// Lets time pass until something is given out.
    fn wait(&mut self) -> Vec<Given> {
        for _ in 0..100 {
            self.now = self.pool.deadline().expect("something will happen").max(self.now);
            let given = self.tell(Event::Tick);
            if !given.is_empty() || !self.ended.is_empty() {
                return given;
            }
        }
        panic!("nothing happens")
    }
}

/// The true answer of a unit.
fn honest(task: &Task) -> Outcome {
    let items = task.cut.slice(task.first_unit).unwrap().items();
    answered(count(items), 70)
}

fn answered(fragment: Vec<u8>, fuel: u64) -> Outcome {
    let unit = UnitRecord { digest: Digest::of(&fragment), fuel };
    Outcome::Completed(Completed { fragment, units: vec![unit] })
}

#[test]
fn only_verifiers_are_asked_and_one_unit_at_a_time() {
    let mut hand = Hand::new();
    assert!(hand.request(1, vec![golden(30, 0, 10), golden(30, 1, 10)]).is_empty());
    assert!(hand.join(1, 1, false).is_empty(), "an ordinary agent settles nothing");
    assert_eq!(hand.pool.trials(), 1);
    let mut given = hand.join(2, 2, true);
    for unit in [0, 1, 2] {
        assert_eq!(given.len(), 1);
        assert_eq!((given[0].1, given[0].3.first_unit), (id(2), unit));
        let outcome = honest(&given[0].3);
        given = hand.answer(&given[0].clone(), outcome);
    }
    assert!(given.is_empty());
    let verdict = &hand.ended[&TrialId(1)];
    assert_eq!((verdict.refused.clone(), verdict.passed.len()), (None, 3));
    assert!(verdict.passed.iter().all(|p| p.verifier == id(2) && p.engine == Digest::of(b"engine")));
    assert_eq!((hand.pool.trials(), hand.pool.leases()), (0, 0));
}

#[test]
fn another_digest_or_fuel_refuses_and_says_what_was_found() {
    for (outcome, found) in [
        (answered(count(11), 70), Digest::of(&count(11)).to_string()),
        (answered(count(10), 71), "and fuel 71".to_owned()),
        (Outcome::Completed(Completed { fragment: vec![], units: vec![] }), "0 units".to_owned()),
        // A record that is right over bytes that are not.
        (
            Outcome::Completed(Completed {
                fragment: count(11),
                units: vec![UnitRecord { digest: Digest::of(&count(10)), fuel: 70 }],
            }),
            "fuel 70".to_owned(),
        ),
    ] {
        let mut hand = Hand::new();
        hand.join(1, 1, true);
        let given = hand.request(1, vec![golden(30, 0, 10)]);
        assert!(hand.answer(&given[0], outcome).is_empty());
        let refused = hand.ended[&TrialId(1)].refused.clone().unwrap();
        assert_eq!(refused.code, FailureCode::RequestComponentGolden);
        assert!(refused.detail.starts_with("profile 'a', stage 'count', unit 0: "), "{refused}");
        assert!(refused.detail.contains(&found) && refused.detail.contains("kernel check --record"), "{refused}");
        assert!(refused.detail.contains(&Digest::of(&count(10)).to_string()), "{refused}");
    }
}

#[test]
fn what_the_kernel_is_to_blame_for_refuses_at_once() {
    for code in [FailureCode::AgentTrap, FailureCode::AgentCompile, FailureCode::AgentFuelExhausted] {
        let mut hand = Hand::new();
        hand.join(1, 1, true);
        let given = hand.request(1, vec![golden(30, 0, 10)]);
        hand.fail(&given[0], code);
        let refused = hand.ended[&TrialId(1)].refused.clone().unwrap();
        assert_eq!((refused.code, refused.detail.contains("it did not work")), (code, true), "{refused}");
    }
}

#[test]
fn what_a_machine_is_to_blame_for_is_tried_elsewhere_then_later_then_given_up() {
    let mut hand = Hand::new();
    hand.join(1, 1, true);
    hand.join(2, 2, true);
    let first = hand.request(1, vec![golden(30, 0, 10)]);
    let second = hand.fail(&first[0], FailureCode::AgentWorkerLost);
    assert_ne!(second[0].1, first[0].1, "the other one is asked");
    assert!(hand.fail(&second[0], FailureCode::AgentFetch).is_empty(), "both rest");
    let third = hand.wait();
    assert!(hand.fail(&third[0], FailureCode::AgentDeadline).is_empty());
    let refused = hand.ended[&TrialId(1)].refused.clone().unwrap();
    assert_eq!(refused.code, FailureCode::AgentAttemptsExhausted);
    assert!(refused.detail.contains("3 attempts"), "{refused}");
}

#[test]
fn a_lost_verifier_and_a_lease_without_answer_cost_nothing_but_time() {
    let mut hand = Hand::new();
    hand.join(1, 1, true);
    let given = hand.request(1, vec![golden(30, 0, 10)]);
    assert!(hand.tell(Event::AgentLeft { session: SessionId(1) }).is_empty());
    let late = honest(&given[0].3);
    hand.answer(&given[0], late);
    assert!(hand.ended.is_empty(), "an answer to a lease that is over counts nothing");
    let again = hand.join(1, 2, true);
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].0, given[0].0, "a new lease");
    // It hangs: the lease ends, is taken back, and a later one is answered.
    let next = hand.wait();
    assert_eq!(hand.revoked, [again[0].0]);
    let done = honest(&next[0].3);
    let last = hand.answer(&next[0], done);
    let done = honest(&last[0].3);
    hand.answer(&last[0], done);
    assert_eq!(hand.ended[&TrialId(1)].refused, None);
}

#[test]
fn a_stopping_hub_takes_its_leases_back_and_decides_nothing() {
    let mut hand = Hand::new();
    hand.join(1, 1, true);
    let given = hand.request(1, vec![golden(30, 0, 10)]);
    hand.tell(Event::ShutdownRequested);
    assert_eq!((hand.revoked.clone(), hand.pool.leases(), hand.ended.len()), (vec![given[0].0], 0, 0));
    assert!(hand.join(2, 2, true).is_empty());
}

/// Source: SplitMix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Verifiers come, go, hang, break and answer at random; true kernels are admitted, false ones refused, always.
#[test]
fn verdicts_do_not_depend_on_what_happens_to_verifiers() {
    for seed in 0..200 {
        let mut state = seed;
        let mut hand = Hand::new();
        hand.pool = Pool::new(Settings { attempts_max: 1_000, losses_max: 1_000, ..Settings::default() });
        let mut open: Vec<Given> = Vec::new();
        for number in 0..4 {
            // Odd kernels lie in their second unit.
            let second = golden(30, 1, 10 + number % 2);
            open.extend(hand.request(number, vec![golden(30, 0, 10), second]));
        }
        let mut session = 0;
        for round in 0..3_000 {
            if hand.ended.len() == 4 {
                break;
            }
            assert!(round < 2_999, "seed {seed}: no end");
            hand.now += draw(&mut state) % 1_000;
            match draw(&mut state) % 8 {
                0 => {
                    session += 1;
                    let agent = (draw(&mut state) % 3) as u8;
                    open.extend(hand.join(agent, session, agent != 0));
                }
                1 if session > 0 => {
                    let gone = SessionId(session - draw(&mut state) % session.min(3));
                    open.extend(hand.tell(Event::AgentLeft { session: gone }));
                }
                2 => open.extend(hand.tell(Event::Tick)),
                3 if !open.is_empty() => {
                    let given = open.swap_remove(draw(&mut state) as usize % open.len());
                    open.extend(hand.fail(&given, FailureCode::AgentWorkerLost));
                }
                4 if !open.is_empty() => {
                    let lease = open[draw(&mut state) as usize % open.len()].0;
                    let broken = Event::LeaseBroken { lease, code: FailureCode::AgentLost, detail: String::new() };
                    open.extend(hand.tell(broken));
                }
                _ if !open.is_empty() => {
                    let given = open.swap_remove(draw(&mut state) as usize % open.len());
                    assert_ne!(given.1, id(0), "seed {seed}: an ordinary agent was asked");
                    let outcome = honest(&given.3);
                    open.extend(hand.answer(&given, outcome));
                }
                _ => {}
            }
        }
        for (trial, verdict) in &hand.ended {
            let lies = trial.0 % 2 == 1;
            assert_eq!(verdict.refused.is_some(), lies, "seed {seed}: {trial:?} {verdict:?}");
            assert_eq!(verdict.passed.len(), if lies { 1 } else { 3 }, "seed {seed}");
        }
        assert_eq!(hand.pool.leases(), 0, "seed {seed}: a lease outlives its trial");
    }
}
