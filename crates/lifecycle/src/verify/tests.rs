#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
use super::*;
use forge_contract::fragment::{Named, Number, Segment, Tile};
use forge_contract::limits::UnitLimits;
use forge_contract::manifest::{PartKind, PartSpec};
use forge_contract::report::UnitRecord;
use forge_contract::seed::StageKey;
use forge_contract::task::{Interval, Rectangle};

#[test]
fn answers_decide_by_majority() {
    let [a, b, c] = [b"a", b"b", b"c"].map(|t| Digest::of(t));
    let cases: [(&[Digest], u32, Decision); 11] = [
        (&[], 1, Decision::More(1)),
        (&[], 2, Decision::More(2)),
        (&[a], 1, Decision::Accept(a)),
        (&[a], 2, Decision::More(1)),
        (&[a, a], 2, Decision::Accept(a)),
        (&[a, b], 1, Decision::More(1)),
        (&[a, b], 2, Decision::More(1)),
        (&[a, b, a], 2, Decision::Accept(a)),
        (&[a, b, c], 2, Decision::More(1)),
        (&[a, a, b, b], 2, Decision::More(1)),
        (&[a, a, b, b, c], 2, Decision::Unsettled),
    ];
    for (answers, want, expected) in cases {
        assert_eq!(decide(answers, want, 5), expected, "{answers:?}");
    }
}

#[test]
fn draws_are_rare_keyed_and_repeatable() {
    let job = JobId::from_bits(7);
    let draws =
        |secret: u8| (0..20_000).filter(|shard| drawn(&[secret; 32], job, 0, *shard, 80_000)).collect::<Vec<u32>>();
    let one = draws(1);
    // 1600 expected; five standard deviations are 192.
    assert!((1408..1792).contains(&one.len()), "{}", one.len());
    assert_eq!(one, draws(1));
    assert_ne!(one, draws(2));
    assert!((0..100).all(|shard| !drawn(&[1; 32], job, 0, shard, 0) && drawn(&[1; 32], job, 0, shard, 1_000_000)));
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
