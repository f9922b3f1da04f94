//! Kernels that check units: made on the spot, right and wrong.

use forge_contract::duty::{Challenge, Duty, Examination, FoundRef};
use forge_contract::fragment::{Fragment, Named, Number, Part, Tile};
use forge_contract::manifest::PartKind;
use forge_contract::report::{Finding, Outcome};
use forge_contract::task::{Cut, Rectangle, Task};
use forge_contract::{Digest, Failure, FailureCode};
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, ShardResult, WorkerError, local};
use tokio::sync::watch;

use crate::kernels;
use crate::processes::{LONG, compile_bytes, spawn};

/// A core module whose `check` has this body. It is given a pointer to its arguments and gives one to its answer:
/// at 0 the result's case, at 8 the verdict's, at 16 its number or text. The unit's index is at 24 of the arguments,
/// the found parts at 80, the challenge at 88.
fn kernel(check: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (memory (export "memory") 2 64)
        (global $next (mut i32) (i32.const 4096))
        (data (i32.const 2048) "no\00\00")
        (func (export "cabi_realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
            (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
            (global.get $next)
            (global.set $next (i32.add (global.get $next) (local.get $new))))
        (func (export "forgepool:kernel/unit@1.0.0#execute")
            (param i32 i32 i32 i32 i32 i32 i64 i64 i32 i64 i64 i32 i32 i32 i32) (result i32) unreachable)
        (func (export "forgepool:kernel/checks@1.0.0#check") (param $arguments i32) (result i32) {check}))"#
    );
    forge_build::from_wat(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// Sound, with this as the probability of error.
fn sound(error: &str) -> String {
    format!("(f64.store (i32.const 16) (f64.const {error})) (i32.const 0)")
}

const UNITS: u64 = 4;

fn task() -> Task {
    let parts = kernels::task("honest", PartKind::Tile).parts;
    Task {
        cut: Cut::Tiles { rows: UNITS, columns: 1, tile_rows: 1, tile_columns: 1 },
        parts,
        inputs: vec![],
        ..kernels::task("honest", PartKind::Tile)
    }
}

/// One cell per unit, which holds the unit's index.
fn found() -> Fragment {
    let tile = |row: u64| Tile {
        at: Rectangle { row, column: 0, rows: 1, columns: 1 },
        number: Number::Int64,
        values: row.to_le_bytes().into(),
    };
    Fragment { parts: vec![Named { name: "work".into(), part: Part::Tiles((0..UNITS).map(tile).collect()) }] }
}

fn asked(found: &Fragment) -> (Task, Inputs) {
    let bytes = found.encode();
    let reference = FoundRef { digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
    let examination = Examination { found: reference, challenge: Challenge([5; 32]) };
    let mut inputs = Inputs::none();
    inputs.set_found(&reference, bytes.into());
    (Task { duty: Duty::Check(examination), ..task() }, inputs)
}

fn run(component: &[u8], (task, inputs): &(Task, Inputs)) -> ShardResult {
    let kernel = local::compile(component, Backend::CraneliftSpeed).unwrap_or_else(|failure| panic!("{failure}"));
    local::run_shard(&kernel, task, inputs, |_| ())
}

#[track_caller]
fn failure(component: &[u8], asked: &(Task, Inputs)) -> Failure {
    match run(component, asked).outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn findings(component: &[u8], asked: &(Task, Inputs)) -> Vec<Finding> {
    match run(component, asked).outcome {
        Outcome::Checked(checked) => checked.units.into_iter().map(|unit| unit.finding).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_unit_is_checked_with_its_own_fragment() {
    // Sound where the tile's first byte is the unit's index: there is one part, whose tile's bytes are
    // where its 44th byte points.
    let own = r#"(if (i64.ne
            (i64.load (i32.load (i32.add (i32.load (i32.add (local.get $arguments) (i32.const 80))) (i32.const 44))))
            (i64.load (i32.add (local.get $arguments) (i32.const 24))))
        (then
            (i32.store8 (i32.const 8) (i32.const 1))
            (i32.store (i32.const 16) (i32.const 2048))
            (i32.store (i32.const 20) (i32.const 2))))
        (i32.const 0)"#;
    let component = kernel(own);
    assert_eq!(findings(&component, &asked(&found())), vec![Finding::Sound { error: 0.0 }; 4]);
    let mut swapped = found();
    let Part::Tiles(tiles) = &mut swapped.parts[0].part else { panic!() };
    let last = tiles[3].values.clone();
    tiles[3].values = core::mem::replace(&mut tiles[1].values, last);
    let wrong = Finding::Wrong { reason: "no".into() };
    let sound = Finding::Sound { error: 0.0 };
    assert_eq!(findings(&component, &asked(&swapped)), [sound.clone(), wrong.clone(), sound, wrong]);
}

#[test]
fn every_unit_has_its_own_challenge() {
    // The challenge's first seven bytes as a number between 0 and 1.
    let told = r#"(f64.store (i32.const 16) (f64.div
            (f64.convert_i64_u (i64.shr_u (i64.load (i32.load (i32.add (local.get $arguments) (i32.const 88)))) (i64.const 8)))
            (f64.const 0x1p56)))
        (i32.const 0)"#;
    let told = findings(&kernel(told), &asked(&found()));
    let expected = (0..UNITS).map(|unit| {
        let challenge = Challenge([5; 32]).of_unit(unit);
        let word = u64::from_le_bytes(*challenge.first_chunk().unwrap());
        Finding::Sound { error: (word >> 8) as f64 / (1u64 << 56) as f64 }
    });
    assert_eq!(told, expected.collect::<Vec<_>>());
}

#[test]
fn a_probability_that_is_none_is_the_kernels_fault() {
    for error in ["nan", "-0.5", "1.5", "inf"] {
        let failure = failure(&kernel(&sound(error)), &asked(&found()));
        assert_eq!((failure.code, failure.unit), (FailureCode::AgentOutputInvalid, Some(0)), "{error}");
    }
    assert_eq!(findings(&kernel(&sound("1")), &asked(&found()))[3], Finding::Sound { error: 1.0 });
}

#[test]
fn a_check_fails_as_a_unit_does() {
    for (body, code) in [
        ("unreachable", FailureCode::AgentTrap),
        ("(loop $l (br $l)) unreachable", FailureCode::AgentFuelExhausted),
        ("(drop (memory.grow (i32.const 17))) unreachable", FailureCode::AgentMemoryLimit),
        ("(i32.const -1)", FailureCode::AgentOutputInvalid),
    ] {
        let failure = failure(&kernel(body), &asked(&found()));
        assert_eq!((failure.code, failure.unit), (code, Some(0)), "{failure}");
    }
    // A refusal of the kernel's: case 1 of the result, then `input` with a text.
    let refusal = r#"(i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 8) (i32.const 1))
        (i32.store (i32.const 12) (i32.const 2048)) (i32.store (i32.const 16) (i32.const 2)) (i32.const 0)"#;
    let failure = failure(&kernel(refusal), &asked(&found()));
    assert_eq!((failure.code, failure.detail.as_str()), (FailureCode::AgentKernelInput, "no"));
}

#[test]
fn long_reasons_are_cut() {
    let long = r#"(i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 16) (i32.const 65536))
        (i32.store (i32.const 20) (i32.const 60000)) (i32.const 0)"#;
    let found = findings(&kernel(long), &asked(&found()));
    for finding in found {
        let Finding::Wrong { reason } = finding else { panic!("{finding:?}") };
        assert_eq!(reason.len(), forge_contract::limits::DETAIL_BYTES_MAX);
    }
}

#[test]
fn what_cannot_be_checked_is_refused() {
    // A kernel without checks.
    let plain = failure(&kernels::component("honest"), &asked(&found()));
    assert_eq!(plain.code, FailureCode::AgentProtocol);
    let component = kernel(&sound("0"));
    // What was found is missing, another, or no fragment.
    let (task, inputs) = asked(&found());
    assert_eq!(failure(&component, &(task.clone(), Inputs::none())).code, FailureCode::AgentFetch);
    let (_, other) = asked(&Fragment { parts: vec![] });
    assert_eq!(failure(&component, &(task, other)).code, FailureCode::AgentFetch);
    let (mut task, mut garbage) = (task_of_bytes(b"garbage"), inputs);
    let Duty::Check(examination) = &mut task.duty else { panic!() };
    garbage.set_found(&examination.found, bytes::Bytes::from_static(b"garbage"));
    assert_eq!(failure(&component, &(task, garbage)).code, FailureCode::AgentFetch);
    // One that does not come apart.
    let count = Fragment { parts: vec![Named { name: "work".into(), part: Part::Count(40) }] };
    assert_eq!(failure(&component, &asked(&count)).code, FailureCode::AgentProtocol);
    let mut short = found();
    let Part::Tiles(tiles) = &mut short.parts[0].part else { panic!() };
    tiles.pop();
    assert_eq!(failure(&component, &asked(&short)).unit, Some(3));
}

fn task_of_bytes(bytes: &[u8]) -> Task {
    let found = FoundRef { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
    Task { duty: Duty::Check(Examination { found, challenge: Challenge([5; 32]) }), ..task() }
}

#[tokio::test]
async fn a_caged_worker_checks_too() {
    let component = kernel(&sound("0.25"));
    let mut worker = spawn().await;
    worker.load(&compile_bytes(&component).await.unwrap()).await.unwrap();
    let (task, inputs) = asked(&found());
    let here = run(&component, &(task.clone(), inputs.clone())).outcome;
    for _ in 0..2 {
        let there = worker.run(&task, &inputs, LONG, &watch::Sender::new(0)).await.unwrap();
        assert_eq!(there.outcome, here);
    }
    let plain: Result<ShardResult, WorkerError> =
        worker.run(&Task { unit_count: 0, ..task }, &inputs, LONG, &watch::Sender::new(0)).await;
    assert!(matches!(plain.unwrap().outcome, Outcome::Failed(_)));
}
