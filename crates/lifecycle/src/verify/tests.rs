#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
use super::*;
use crate::member::OwnerId;
use crate::plan::StagePlan;
use forge_contract::canon::CanonError;
use forge_contract::fragment::{Fragment, Part, StructureError};
use forge_contract::fragment::{Named, Number, Segment, Tile};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::Completed;
use forge_contract::report::UnitRecord;
use forge_contract::seed::StageKey;
use forge_contract::task::Cut;
use forge_contract::task::{Interval, Rectangle};
use forge_contract::{Digest, JobId, LeaseId};

const POLICY: AuditPolicy = AuditPolicy {
    error_ppm: 1_000,
    bad_ppm: 200_000,
    bad_checkers_ppm: 0,
    rate_min_ppm: 50_000,
    probation: 50,
    proven: 1_000,
    sample_ppm: 10_000,
};

/// The answer `result` of owner `owner`.
fn vote(result: u8, owner: u64) -> Vote {
    Vote { result: Digest::of(&[result]), owner: OwnerId(owner), verifier: false, clean: 0, coin: 999_999 }
}

fn verifier(result: u8, owner: u64) -> Vote {
    Vote { verifier: true, ..vote(result, owner) }
}

const NOBODY: Askable = Askable { anyone: false, verifier: false, proven: false };
const STRANGERS: Askable = Askable { anyone: true, ..NOBODY };
const ALL: Askable = Askable { anyone: true, verifier: true, proven: true };

#[test]
fn without_a_verifier_the_majority_decides() {
    let cases: [(&[u8], Decision); 8] = [
        (&[], Decision::More(From::Anyone)),
        (&[1], Decision::Accept(Digest::of(&[1]))),
        (&[1, 2], Decision::More(From::Anyone)),
        (&[1, 2, 1], Decision::Accept(Digest::of(&[1]))),
        (&[1, 2, 3], Decision::More(From::Anyone)),
        (&[1, 1, 2, 2], Decision::More(From::Anyone)),
        (&[1, 1, 2, 2, 1], Decision::Accept(Digest::of(&[1]))),
        (&[1, 1, 2, 2, 3], Decision::Unsettled),
    ];
    for (answers, expected) in cases {
        let votes: Vec<Vote> = (0..).zip(answers).map(|(owner, result)| proven(vote(*result, owner))).collect();
        assert_eq!(decide(&POLICY, VerifyMode::Spotcheck, &votes, NOBODY, 5), expected, "{answers:?}");
    }
}

fn proven(vote: Vote) -> Vote {
    Vote { clean: 20_000, ..vote }
}

#[test]
fn a_verifier_settles_what_others_disagree_about() {
    let decide = |votes: &[Vote], mode| decide(&POLICY, mode, votes, ALL, 5);
    for mode in [VerifyMode::None, VerifyMode::Spotcheck, VerifyMode::Quorum] {
        assert_eq!(decide(&[vote(1, 1), vote(2, 2)], mode), Decision::More(From::Verifier));
        // Two that collude lose against one verifier.
        let votes = [vote(1, 1), vote(1, 2), verifier(2, 3)];
        assert_eq!(decide(&votes, mode), Decision::Accept(Digest::of(&[2])), "{mode}");
        assert_eq!(decide(&[verifier(1, 1), verifier(2, 2)], mode), Decision::More(From::Verifier));
        let votes = [verifier(1, 1), verifier(2, 2), verifier(2, 3)];
        assert_eq!(decide(&votes, mode), Decision::Accept(Digest::of(&[2])));
    }
    assert_eq!(decide(&[vote(1, 1), verifier(2, 2)], VerifyMode::Full), Decision::Unsettled, "full wants all equal");
}

#[test]
fn each_mode_asks_for_its_owners() {
    use Decision::{Accept, More};
    let one = Accept(Digest::of(&[1]));
    let at = |mode, votes: &[Vote], askable| decide(&POLICY, mode, votes, askable, 5);
    let quorum = |votes: &[Vote], askable| at(VerifyMode::Quorum, votes, askable);
    assert_eq!(quorum(&[vote(1, 1)], ALL), More(From::Proven));
    assert_eq!(quorum(&[proven(vote(1, 1))], ALL), More(From::Anyone));
    assert_eq!(quorum(&[vote(1, 1), vote(1, 2)], ALL), More(From::Proven), "two strangers prove nothing");
    assert_eq!(quorum(&[vote(1, 1), vote(1, 2)], NOBODY), one, "nobody better is there");
    assert_eq!(quorum(&[vote(1, 1), verifier(1, 2)], ALL), one);
    let audited = [Vote { coin: 0, ..proven(vote(1, 1)) }, proven(vote(1, 2))];
    assert_eq!(quorum(&audited, ALL), More(From::Verifier));
    assert_eq!(quorum(&audited, STRANGERS), More(From::Anyone));
    assert_eq!(quorum(&audited, NOBODY), one);
    assert_eq!(quorum(&[audited[0], audited[1], vote(1, 3)], NOBODY), one);
    let full = |votes: &[Vote]| at(VerifyMode::Full, votes, ALL);
    assert_eq!(full(&[verifier(1, 1)]), More(From::Anyone));
    assert_eq!(full(&[verifier(1, 1), vote(1, 2)]), More(From::Anyone));
    assert_eq!(full(&[vote(1, 1), vote(1, 2)]), More(From::Verifier));
    assert_eq!(full(&[vote(1, 1), vote(1, 2), vote(1, 3)]), More(From::Verifier));
    assert_eq!(full(&[vote(1, 1), vote(1, 2), verifier(1, 3)]), one);
    let none = |coin| at(VerifyMode::None, &[Vote { coin, ..vote(1, 1) }], ALL);
    assert_eq!((none(9_999), none(10_000)), (More(From::Anyone), one));
    let spot = |clean, coin| at(VerifyMode::Spotcheck, &[Vote { coin, clean, ..vote(1, 1) }], ALL);
    assert_eq!(
        (spot(49, 999_999), spot(20_000, 50_000), spot(20_000, 49_999)),
        (More(From::Anyone), one, More(From::Anyone))
    );
}

#[test]
fn where_accomplices_check_the_young_are_left_to_verifiers() {
    let policy = AuditPolicy { bad_checkers_ppm: 200_000, ..POLICY };
    let spot = |policy: &AuditPolicy, clean, askable| {
        decide(policy, VerifyMode::Spotcheck, &[Vote { coin: 0, clean, ..vote(1, 1) }], askable, 5)
    };
    // A stranger's check finds four in five: enough from the record on where four in five are looked at.
    assert_eq!(spot(&policy, 49, ALL), Decision::More(From::Verifier));
    assert_eq!(spot(&policy, 50, ALL), Decision::More(From::Anyone));
    assert_eq!(spot(&policy, 49, STRANGERS), Decision::More(From::Anyone), "nobody better is there");
    assert_eq!(spot(&POLICY, 0, ALL), Decision::More(From::Anyone), "no accomplices are assumed");
    let agreed = [Vote { coin: 0, ..vote(1, 1) }, vote(1, 2)];
    let with = |votes: &[Vote]| decide(&policy, VerifyMode::Spotcheck, votes, ALL, 5);
    assert_eq!(with(&agreed), Decision::More(From::Verifier), "two strangers may be accomplices");
    assert_eq!(with(&[agreed[0], verifier(1, 2)]), Decision::Accept(Digest::of(&[1])));
}

/// The published rule, in floating point: `max(q_min, 1 / (1 + n eps / f)) / (1 - phi)`, and 1 in probation.
#[test]
fn the_audit_rate_falls_as_the_formula_says_and_never_to_zero() {
    let policy = AuditPolicy { bad_checkers_ppm: 100_000, rate_min_ppm: 20_000, ..POLICY };
    for (policy, phi, least) in [(POLICY, 0.0, 0.05), (policy, 0.1, 0.02)] {
        for n in (0..60).chain([100, 199, 1_000, 4_000, 20_000, 1_000_000, u64::MAX]) {
            let formula = if n < 50 { 1.0 } else { f64::max(least, 1.0 / (1.0 + n as f64 * 1e-3 / 0.2)) };
            let expected = (formula / (1.0 - phi)).min(1.0);
            let found = f64::from(policy.rate_ppm(n)) / 1e6;
            assert!((found - expected).abs() < 3e-6, "n {n}: {found} where the formula says {expected}");
        }
    }
    let never = AuditPolicy { rate_min_ppm: 0, ..POLICY };
    assert!(never.rate_ppm(u64::MAX) >= 1);
}

#[test]
fn coins_are_fair_keyed_and_repeatable() {
    let job = JobId::from_bits(7);
    let toss = |secret: u8, lease: u64| -> Vec<u32> {
        (0..20_000).map(|shard| coin(&[secret; 32], job, (0, shard), LeaseId(lease))).collect()
    };
    let one = toss(1, 5);
    let hits = one.iter().filter(|coin| **coin < 80_000).count();
    // 1600 expected; five standard deviations are 192.
    assert!((1408..1792).contains(&hits), "{hits}");
    assert_eq!(one, toss(1, 5));
    assert_ne!(one, toss(2, 5));
    assert_ne!(one, toss(1, 6), "an answer given anew has another coin");
    assert!(one.iter().all(|coin| *coin < 1_000_000));
}

fn stage(cut: Cut, kind: PartKind) -> StagePlan {
    let units = cut.units();
    StagePlan {
        name: "s".into(),
        key: StageKey([0; 32]),
        items: match cut {
            Cut::Items { total, .. } => total,
            _ => units,
        },
        cut,
        units,
        shard_units: 2,
        shards: u32::try_from(units.div_ceil(2)).unwrap(),
        limits: UnitLimits { fuel: 10, memory_bytes: 1, output_bytes: 200 },
        parts: vec![PartSpec {
            name: "x".into(),
            kind,
            counts_items: kind == PartKind::Count,
            shown: true,
            unit: None,
        }],
        inputs: vec![],
        fuel_expected: 1,
        stop: None,
    }
}

fn answer(part: Part, units: usize) -> Completed {
    let fragment = Fragment { parts: vec![Named { name: "x".into(), part }] }.encode();
    let unit = UnitRecord { digest: Digest::of(&fragment), fuel: 10 };
    Completed { fragment, units: vec![unit; units] }
}

#[test]
fn a_sound_answer_passes_and_each_fault_is_named() {
    // 5 items, 2 per unit, 2 units per shard: shard 0 has 4 items, shard 1 has 1 unit with 1 item.
    let stage = stage(Cut::Items { total: 5, unit: 2 }, PartKind::Count);
    assert!(structure(&stage, 0, &answer(Part::Count(4), 2)).is_ok());
    assert!(structure(&stage, 1, &answer(Part::Count(1), 1)).is_ok());
    let fault = |shard, answer: &Completed| structure(&stage, shard, answer).unwrap_err();
    assert_eq!(fault(0, &answer(Part::Count(4), 1)), AnswerFault::Units { expected: 2, found: 1 });
    assert_eq!(fault(2, &answer(Part::Count(4), 1)), AnswerFault::Units { expected: 0, found: 1 });
    let mut greedy = answer(Part::Count(4), 2);
    greedy.units[1].fuel = 11;
    assert_eq!(fault(0, &greedy), AnswerFault::Fuel { unit: 1, found: 11, max: 10 });
    let mut fat = answer(Part::Count(4), 2);
    fat.fragment.resize(401, 0);
    assert_eq!(fault(0, &fat), AnswerFault::Bytes { found: 401, max: 400 });
    let mut other = answer(Part::Count(1), 1);
    other.units[0].digest = Digest::of(b"other");
    assert_eq!(fault(1, &other), AnswerFault::Commitment { unit: 2 });
    let mut garbage = answer(Part::Count(4), 2);
    garbage.fragment.push(0);
    assert!(matches!(fault(0, &garbage), AnswerFault::Canon(CanonError::Trailing { extra: 1 })));
    assert!(matches!(
        fault(0, &answer(Part::Count(3), 2)),
        AnswerFault::Structure(StructureError::Items { expected: 4, found: 3, .. })
    ));
    assert!(matches!(fault(0, &answer(Part::Sum(1.0), 2)), AnswerFault::Structure(StructureError::Parts { .. })));
}

#[test]
fn tiles_lie_where_the_plan_cut_them() {
    let stage = stage(Cut::Tiles { rows: 3, columns: 2, tile_rows: 2, tile_columns: 2 }, PartKind::Tile);
    let tile = |row: u64, rows: u32| Tile {
        at: Rectangle { row, column: 0, rows, columns: 2 },
        number: Number::Float32,
        values: vec![0; rows as usize * 8],
    };
    let check = |tiles: Vec<Tile>| structure(&stage, 0, &answer(Part::Tiles(tiles), 2)).err();
    assert_eq!(check(vec![tile(0, 2), tile(2, 1)]), None);
    let misplaced = |index| Some(AnswerFault::Misplaced { part: "x".into(), index });
    assert_eq!(check(vec![tile(0, 2), tile(0, 2)]), misplaced(1));
    assert_eq!(check(vec![tile(0, 2)]), misplaced(1));
    assert_eq!(check(vec![tile(0, 2), tile(2, 1), tile(2, 1)]), misplaced(3));
}

#[test]
fn segments_lie_where_the_plan_cut_them() {
    let stage = stage(Cut::Segments { boundaries: vec![0, 10, 25] }, PartKind::Segment);
    let segment = |start, end| Segment { at: Interval { start, end }, media: vec![1] };
    let check = |segments: Vec<Segment>| structure(&stage, 0, &answer(Part::Segments(segments), 2)).err();
    assert_eq!(check(vec![segment(0, 10), segment(10, 25)]), None);
    assert_eq!(
        check(vec![segment(0, 11), segment(11, 25)]),
        Some(AnswerFault::Misplaced { part: "x".into(), index: 0 })
    );
}
