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
    units_ppm: 250_000,
    units_again: 2,
    units_min: 32,
    copies_ppm: 125_000,
};

/// Coins of this value alike.
fn coin(value: u32) -> Coins {
    Coins { audit: value, kind: value, place: [0; 32] }
}

/// A shard of one unit about which nothing but who can be asked is known.
fn about(askable: Askable) -> Circumstances {
    Circumstances { askable, units: 1, ..Circumstances::default() }
}

/// The answer `result` of owner `owner`.
fn vote(result: u8, owner: u64) -> Vote {
    Vote { result: Digest::of(&[result]), owner: OwnerId(owner), verifier: false, clean: 0, coins: coin(999_999) }
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
        assert_eq!(decide(&POLICY, VerifyMode::Spotcheck, &votes, about(NOBODY), 5), expected, "{answers:?}");
    }
}

fn proven(vote: Vote) -> Vote {
    Vote { clean: 20_000, ..vote }
}

#[test]
fn a_verifier_settles_what_others_disagree_about() {
    let decide = |votes: &[Vote], mode| decide(&POLICY, mode, votes, about(ALL), 5);
    for mode in [VerifyMode::None, VerifyMode::Spotcheck, VerifyMode::Quorum] {
        assert_eq!(decide(&[vote(1, 1), vote(2, 2)], mode), Decision::More(From::Verifier));
        // Two that collude lose against one verifier.
        let votes = [vote(1, 1), vote(1, 2), verifier(2, 3)];
        assert_eq!(decide(&votes, mode), Decision::Accept(Digest::of(&[2])), "{mode}");
        assert_eq!(decide(&[verifier(1, 1), verifier(2, 2)], mode), Decision::More(From::Verifier));
        let votes = [verifier(1, 1), verifier(2, 2), verifier(2, 3)];
        assert_eq!(decide(&votes, mode), Decision::Accept(Digest::of(&[2])));
    }
    // What a verifier refutes counts for nothing: full still wants two owners and a verifier that are equal.
    let full = |votes: &[Vote]| decide(votes, VerifyMode::Full);
    assert_eq!(full(&[vote(1, 1), vote(2, 2)]), Decision::More(From::Verifier));
    assert_eq!(full(&[vote(1, 1), verifier(2, 2)]), Decision::More(From::Anyone));
    assert_eq!(full(&[vote(1, 1), verifier(2, 2), vote(2, 3)]), Decision::More(From::Anyone));
    let settled = [vote(1, 1), vote(1, 2), verifier(2, 3), vote(2, 4), vote(2, 5)];
    assert_eq!(full(&settled), Decision::Accept(Digest::of(&[2])), "two liars that agree change nothing");
    let outnumbered = [settled[0], settled[1], settled[2], vote(3, 4), settled[4], vote(1, 6)];
    // The truth is known, however many lie: the proven are asked first, for liars come back as strangers.
    for count in 5..=6 {
        let more = |askable| super::decide(&POLICY, VerifyMode::Full, &outnumbered[..count], about(askable), 5);
        assert_eq!(more(ALL), Decision::More(From::Proven));
        assert_eq!(more(NOBODY), Decision::More(From::Anyone));
    }
    assert_eq!(full(&[verifier(1, 1), verifier(2, 2)]), Decision::Unsettled, "verifiers that differ settle nothing");
}

#[test]
fn each_mode_asks_for_its_owners() {
    use Decision::{Accept, More};
    let one = Accept(Digest::of(&[1]));
    let at = |mode, votes: &[Vote], askable| decide(&POLICY, mode, votes, about(askable), 5);
    let quorum = |votes: &[Vote], askable| at(VerifyMode::Quorum, votes, askable);
    assert_eq!(quorum(&[vote(1, 1)], ALL), More(From::Proven));
    assert_eq!(quorum(&[proven(vote(1, 1))], ALL), More(From::Anyone));
    assert_eq!(quorum(&[vote(1, 1), vote(1, 2)], ALL), More(From::Proven), "two strangers prove nothing");
    assert_eq!(quorum(&[vote(1, 1), vote(1, 2)], NOBODY), one, "nobody better is there");
    assert_eq!(quorum(&[vote(1, 1), verifier(1, 2)], ALL), one);
    let audited = [Vote { coins: coin(0), ..proven(vote(1, 1)) }, proven(vote(1, 2))];
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
    let none = |drawn| at(VerifyMode::None, &[Vote { coins: coin(drawn), ..vote(1, 1) }], ALL);
    assert_eq!((none(9_999), none(10_000)), (More(From::Anyone), one));
    let spot = |clean, drawn| at(VerifyMode::Spotcheck, &[Vote { coins: coin(drawn), clean, ..vote(1, 1) }], ALL);
    assert_eq!(
        (spot(49, 999_999), spot(20_000, 50_000), spot(20_000, 49_999)),
        (More(From::Anyone), one, More(From::Anyone))
    );
}

#[test]
fn where_accomplices_check_the_young_are_left_to_verifiers() {
    let policy = AuditPolicy { bad_checkers_ppm: 200_000, ..POLICY };
    let spot = |policy: &AuditPolicy, clean, askable| {
        decide(policy, VerifyMode::Spotcheck, &[Vote { coins: coin(0), clean, ..vote(1, 1) }], about(askable), 5)
    };
    // A stranger's check finds four in five: enough from the record on where four in five are looked at.
    assert_eq!(spot(&policy, 49, ALL), Decision::More(From::Verifier));
    assert_eq!(spot(&policy, 50, ALL), Decision::More(From::Anyone));
    assert_eq!(spot(&policy, 49, STRANGERS), Decision::More(From::Anyone), "nobody better is there");
    assert_eq!(spot(&POLICY, 0, ALL), Decision::More(From::Anyone), "no accomplices are assumed");
    let agreed = [Vote { coins: coin(0), ..vote(1, 1) }, vote(1, 2)];
    let with = |votes: &[Vote]| decide(&policy, VerifyMode::Spotcheck, votes, about(ALL), 5);
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
fn a_cheap_look_is_asked_for_where_the_coins_say_so() {
    let policy = AuditPolicy { probation: 0, ..POLICY };
    let at = |audit, kind, about: Circumstances| {
        let coins = Coins { audit, kind, place: [0; 32] };
        decide(&policy, VerifyMode::Spotcheck, &[Vote { coins, ..proven(vote(1, 1)) }], about, 5)
    };
    let many = Circumstances { units: 64, ..about(ALL) };
    let accepted = Decision::Accept(Digest::of(&[1]));
    assert_eq!(at(900_000, 249_999, many), Decision::Look(Look::Units));
    assert_eq!(at(900_000, 250_000, many), accepted);
    assert_eq!(at(900_000, 0, Circumstances { units: 31, ..many }), accepted, "too few units: it would be no saving");
    assert_eq!(at(900_000, 0, Circumstances { looked: true, ..many }), accepted);
    // An audit is a whole copy, or seven times in eight the kernel's own check where it has one.
    assert_eq!(at(0, 0, many), Decision::More(From::Anyone));
    let checkable = Circumstances { checkable: true, ..many };
    assert_eq!(
        (at(0, 124_999, checkable), at(0, 125_000, checkable)),
        (Decision::More(From::Anyone), Decision::Look(Look::Check))
    );
    assert_eq!(at(0, 999_999, Circumstances { looked: true, ..checkable }), accepted);
}

#[test]
fn what_a_look_found_wrong_is_settled_by_a_whole_copy() {
    let doubted = |votes: &[Vote], askable| {
        let about = Circumstances { doubted: true, units: 64, ..about(askable) };
        decide(&POLICY, VerifyMode::Spotcheck, votes, about, 5)
    };
    let one = Decision::Accept(Digest::of(&[1]));
    assert_eq!(doubted(&[vote(1, 1)], ALL), Decision::More(From::Verifier));
    assert_eq!(doubted(&[vote(1, 1)], STRANGERS), Decision::More(From::Anyone));
    assert_eq!(doubted(&[vote(1, 1), vote(1, 2)], ALL), Decision::More(From::Verifier));
    assert_eq!(doubted(&[vote(1, 1), vote(1, 2)], STRANGERS), one, "two owners against one");
    assert_eq!(doubted(&[vote(1, 1), verifier(1, 2)], ALL), one, "who looked was wrong");
    assert_eq!(doubted(&[vote(1, 1), verifier(2, 2)], ALL), Decision::Accept(Digest::of(&[2])));
}

#[test]
fn coins_are_fair_keyed_and_repeatable() {
    let job = JobId::from_bits(7);
    let toss = |secret: u8, lease: u64| -> Vec<Coins> {
        (0..20_000).map(|shard| coins(&[secret; 32], job, (0, shard), LeaseId(lease))).collect()
    };
    let one = toss(1, 5);
    // 1600 expected; five standard deviations are 192.
    let fair = 1408..1792;
    let hits = |of: fn(&Coins) -> u32| one.iter().filter(|coins| of(coins) < 80_000).count();
    assert!(fair.contains(&hits(|coins| coins.audit)) && fair.contains(&hits(|coins| coins.kind)));
    let both = one.iter().filter(|coins| coins.audit < 80_000 && coins.kind < 80_000).count();
    assert!((70..190).contains(&both), "128 expected where they are independent: {both}");
    assert_eq!(one, toss(1, 5));
    assert_ne!(one, toss(2, 5));
    assert_ne!(one, toss(1, 6), "an answer given anew has other coins");
    assert!(one.iter().all(|coins| coins.audit < 1_000_000 && coins.kind < 1_000_000));
}

#[test]
fn units_are_drawn_without_repetition_and_alike_often() {
    let mut counts = [0u32; 40];
    for seed in 0..4_000u32 {
        let mut place = [0; 32];
        place[..4].copy_from_slice(&seed.to_le_bytes());
        let drawn = drawn_units(&place, 100, 40, 3);
        assert!(drawn.len() == 3 && drawn.is_sorted_by(|a, b| a < b), "{drawn:?}");
        assert_eq!(drawn, drawn_units(&place, 100, 40, 3));
        drawn.iter().for_each(|unit| counts[usize::try_from(unit - 100).unwrap()] += 1);
    }
    // 300 expected each; five standard deviations are 84.
    assert!(counts.iter().all(|count| (216..384).contains(count)), "{counts:?}");
    assert_eq!(drawn_units(&[1; 32], 7, 2, 9), [7, 8]);
}

/// docs/verification.md: an answer of which a share p was made up escapes s looks with (1 - p)^s.
#[test]
fn the_catch_rate_of_looks_is_the_formula() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    for (share, looks) in [(0.1, 2), (0.5, 2), (0.02, 8), (1.0, 1)] {
        let trials = 20_000u32;
        let caught = (0..trials).filter(|trial| {
            let made_up: Vec<bool> = (0..256).map(|_| uniform() < share).collect();
            let mut place = [0; 32];
            place[..4].copy_from_slice(&trial.to_le_bytes());
            drawn_units(&place, 0, 256, looks).iter().any(|unit| made_up[usize::try_from(*unit).unwrap()])
        });
        let (found, expected) =
            (caught.count() as f64, f64::from(trials) * (1.0 - (1.0f64 - share).powi(looks as i32)));
        assert!(
            (found - expected).abs() <= 5.0 * expected.sqrt(),
            "p {share}, s {looks}: {found}, expected {expected}"
        );
    }
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
        checks: false,
    }
}

fn answer(part: Part, units: usize) -> Completed {
    let fragment = Fragment { parts: vec![Named { name: "x".into(), part }] };
    let digest = |unit| fragment.unit(unit).as_ref().unwrap_or(&fragment).digest();
    let units = (0..units).map(|unit| UnitRecord { digest: digest(unit), fuel: 10 }).collect();
    Completed { fragment: fragment.encode(), units }
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
fn each_tile_of_a_shard_is_the_one_its_unit_commits_to() {
    let stage = stage(Cut::Tiles { rows: 3, columns: 2, tile_rows: 2, tile_columns: 2 }, PartKind::Tile);
    let tile = |row: u64, rows: u32, byte: u8| Tile {
        at: Rectangle { row, column: 0, rows, columns: 2 },
        number: Number::Float32,
        values: vec![byte; rows as usize * 8],
    };
    let honest = answer(Part::Tiles(vec![tile(0, 2, 1), tile(2, 1, 1)]), 2);
    assert!(structure(&stage, 0, &honest).is_ok());
    // A fragment changed after its units were committed, and records of other units.
    let changed = answer(Part::Tiles(vec![tile(0, 2, 1), tile(2, 1, 2)]), 2);
    let moved = Completed { units: honest.units.clone(), ..changed };
    assert_eq!(structure(&stage, 0, &moved), Err(AnswerFault::Commitment { unit: 1 }));
    let mut swapped = honest;
    swapped.units.reverse();
    assert_eq!(structure(&stage, 0, &swapped), Err(AnswerFault::Commitment { unit: 0 }));
}

#[test]
fn a_shard_has_one_tile_per_unit_however_it_is_cut() {
    let stage = stage(Cut::Elements { count: 2 }, PartKind::Tile);
    let tile =
        Tile { at: Rectangle { row: 0, column: 0, rows: 1, columns: 1 }, number: Number::Int32, values: vec![0; 4] };
    let check = |tiles| structure(&stage, 0, &answer(Part::Tiles(vec![tile.clone(); tiles]), 2)).err();
    assert_eq!(check(2), None);
    for pieces in [1, 3] {
        assert_eq!(check(pieces), Some(AnswerFault::Misplaced { part: "x".into(), index: pieces }));
    }
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
