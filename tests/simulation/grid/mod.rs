//! The grid of adversaries over the real pool: how many wrong answers are accepted, what checks cost, whom they harm.
//!
//! A module of the simulation, small, and a program of its own (`cargo xtask simulate`), at full size.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    missing_docs
)]

mod bound;
mod cell;
mod cells;
mod chance;
mod gate;
mod kernel;
mod prediction;
mod strategy;
mod table;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use forge_contract::envelope::VerifyMode;
use forge_lifecycle::verify::AuditPolicy;

use cell::Cell;
use cells::Size;
use strategy::Strategy;
use table::Row;

/// Runs cells on every core, in any order; the rows are in theirs.
fn rows(cells: &[Cell]) -> Vec<Row> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(at) else { break };
            let row = Row { cell: *cell, tally: world::run(cell) };
            done.lock().unwrap().push((at, row));
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, row)| row).collect()
}

fn assert_hold(rows: &[Row]) {
    println!("{}", table::plain(rows));
    let failed = rows.iter().filter(|row| row.fails()).count();
    assert_eq!(failed, 0, "{failed} gates do not hold");
}

#[test]
fn under_spotcheck_errors_stay_below_their_bound() {
    assert_hold(&rows(&cells::of(VerifyMode::Spotcheck, Size::Small)));
}

#[test]
fn under_quorum_errors_stay_below_their_bound() {
    assert_hold(&rows(&cells::of(VerifyMode::Quorum, Size::Small)));
}

#[test]
fn full_accepts_nothing_wrong() {
    assert_hold(&rows(&cells::of(VerifyMode::Full, Size::Small)));
}

#[test]
fn none_samples_one_in_a_hundred() {
    assert_hold(&rows(&cells::of(VerifyMode::None, Size::Small)));
}

/// The gates must be able to fail: policies that are too mild are found out by them.
#[test]
fn a_wrong_audit_formula_fails_the_gate() {
    let honest = cells::ordinary(Strategy::Sleeps(100), VerifyMode::Spotcheck, 20, 10, Size::Small);
    let times = |factor| AuditPolicy { error_ppm: factor * honest.policy.error_ppm, ..honest.policy };
    let wrong = [
        ("a hundred times the error", Cell { policy: times(100), shards: 24_000, ..honest }),
        ("flat 5%", Cell { strategy: Strategy::Random(1_000_000), policy: cells::flat(50_000), start: 1, ..honest }),
        ("no probation and 1/n", Cell { policy: cells::one_over_n(), ..honest }),
    ];
    assert_eq!(gate::broken(&honest, &world::run(&honest)), Vec::<&str>::new());
    for (what, cell) in wrong {
        let tally = world::run(&cell);
        println!("{what}: {} of {} wrong", tally.delivered_wrong, tally.delivered);
        assert!(
            gate::broken(&cell, &tally).contains(&"error"),
            "{what}: {} of {} wrong",
            tally.delivered_wrong,
            tally.delivered
        );
    }
}

/// What SECURITY says of a flat rate: at a fifth of bad agents about a fifth of all shards is wrong.
#[test]
fn other_policies_fare_worse() {
    let rows = rows(&cells::comparisons(Size::Small));
    println!("{}", table::plain(&rows));
    // Neither system forgets what it accepted.
    let rate = |row: usize| rows[row].tally.wrong as f64 / rows[row].tally.accepted as f64;
    assert!((0.15..0.21).contains(&rate(0)) && (0.15..0.21).contains(&rate(1)), "{} {}", rate(0), rate(1));
}

/// Where verifiers are few, strangers must not make copies in their place with the verifier's on top.
#[test]
fn full_with_few_verifiers_takes_three_attempts() {
    let cell = cells::ordinary(Strategy::Random(500), VerifyMode::Full, 5, 10, Size::Small);
    let tally = world::run(&Cell { verifiers: 10, ..cell });
    assert!(tally.overhead() < 1.02 * tally.overhead_predicted(), "{:.3}", tally.overhead());
}

/// How the pool's own speed depends on how many are connected.
#[test]
#[ignore = "measures"]
fn speed() {
    for (strangers, verifiers) in [(10, 0), (100, 0), (100, 10), (400, 0), (400, 40)] {
        let cell = cells::ordinary(Strategy::Random(500), VerifyMode::Spotcheck, 5, 0, Size::Small);
        let cell = Cell { strangers, verifiers, shards: 100_000, ..cell };
        let begun = std::time::Instant::now();
        let tally = world::run(&cell);
        let per_second = tally.executions as f64 / begun.elapsed().as_secs_f64();
        println!("{strangers} strangers, {verifiers} verifiers: {per_second:.0} attempts a second");
    }
}

/// `cargo xtask simulate`.
#[test]
#[ignore = "minutes: cargo xtask simulate"]
fn full_size() {
    let only = std::env::var("FORGEPOOL_GRID_MODE").ok();
    let modes = [VerifyMode::Spotcheck, VerifyMode::Quorum, VerifyMode::Full, VerifyMode::None];
    let wanted = modes.into_iter().filter(|mode| only.as_ref().is_none_or(|only| *only == mode.to_string()));
    let mut cells: Vec<Cell> = wanted.flat_map(|mode| cells::of(mode, Size::Full)).collect();
    if only.is_none_or(|only| only == "spotcheck") {
        cells.extend(cells::comparisons(Size::Full));
    }
    let begun = std::time::Instant::now();
    let mut done: Vec<Row> = Vec::new();
    for some in cells.chunks(cells::GROUP) {
        let new = rows(some);
        println!("{}", table::plain(&new));
        done.extend(new);
        if let Ok(path) = std::env::var("FORGEPOOL_GRID_MARKDOWN") {
            std::fs::write(&path, table::markdown(&done)).unwrap();
        }
    }
    let attempts: u64 = done.iter().map(|row| row.tally.executions).sum();
    println!("{attempts} attempts of complete jobs in {:.0} s", begun.elapsed().as_secs_f64());
    let failed = done.iter().filter(|row| row.fails()).count();
    assert_eq!(failed, 0, "{failed} gates do not hold");
}
