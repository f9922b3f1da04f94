//! Which cells the grid has.

use forge_contract::envelope::VerifyMode;
use forge_lifecycle::verify::AuditPolicy;

use super::cell::Cell;
use super::strategy::Strategy;

/// How much of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Seconds.
    Small,
    /// Minutes.
    Full,
}

/// Cells of one mode, with or without verifiers, and one share of bad agents.
pub const GROUP: usize = STRATEGIES.len() + 3;

const STRATEGIES: [Strategy; 19] = [
    Strategy::Random(1_000_000),
    Strategy::Random(100_000),
    Strategy::Random(10_000),
    Strategy::Random(500),
    Strategy::Strikes { clean: 100, lies: 1 },
    Strategy::Strikes { clean: 1_000, lies: 1 },
    Strategy::Strikes { clean: 4_000, lies: 1 },
    Strategy::Strikes { clean: 20_000, lies: 1 },
    Strategy::Strikes { clean: 100, lies: 5 },
    Strategy::Strikes { clean: 1_000, lies: 10 },
    Strategy::Sleeps(100),
    Strategy::Sleeps(1_000),
    Strategy::Sleeps(4_000),
    Strategy::Careful,
    Strategy::Gambles(0),
    Strategy::Gambles(200),
    Strategy::Gambles(1_000),
    Strategy::Constant,
    Strategy::Repeats,
];

/// How many times the ordinary full size.
fn times() -> u64 {
    std::env::var("FORGEPOOL_GRID_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// A cell of the ordinary kind.
pub fn ordinary(strategy: Strategy, mode: VerifyMode, bad: u32, verifiers: usize, size: Size) -> Cell {
    let patience = strategy.patience();
    // Patient ones need a small pool to get anywhere.
    let strangers = match size {
        _ if patience >= 1_000 => 20,
        Size::Small => 40,
        Size::Full => 100,
    };
    let verifiers = match mode {
        // One takes part in every shard.
        VerifyMode::Full => verifiers * strangers / 20,
        _ => verifiers * strangers / 100,
    };
    let mut cell = Cell {
        instead: None,
        strategy,
        mode,
        policy: AuditPolicy::default(),
        bad,
        strangers,
        verifiers,
        faulty: false,
        churn: false,
        start: 0,
        leases: 1,
        jobs: 1,
        // Of shards that fail their job, a large one has always some.
        job: if mode == VerifyMode::Full { 20 } else { 400 },
        shards: match size {
            Size::Small => 4_000.max(2 * patience * strangers as u64),
            Size::Full => times() * 60_000.max(3 * patience * strangers as u64),
        },
        seed: 1,
    };
    if strategy.is_alike() {
        cell.policy.bad_checkers_ppm = (cell.bad_share() * 1e6).round() as u32;
    }
    cell
}

/// The grid of a mode.
pub fn of(mode: VerifyMode, size: Size) -> Vec<Cell> {
    // What differs between patient and impatient ones is the audit rate; `full` and `none` have none that falls.
    let most = |bad| match (size, mode) {
        (_, VerifyMode::Full | VerifyMode::None) => 200,
        (Size::Small, VerifyMode::Spotcheck) if bad == 20 => 1_000,
        (Size::Small, _) => 200,
        (Size::Full, _) => u64::MAX,
    };
    let mut cells = Vec::new();
    for verifiers in [10, 0] {
        // Without one there is nobody to make the third copy.
        if mode == VerifyMode::Full && verifiers == 0 {
            continue;
        }
        for bad in [5, 20, 35] {
            let cell = |strategy| ordinary(strategy, mode, bad, verifiers, size);
            cells.extend(STRATEGIES.into_iter().filter(|strategy| strategy.patience() <= most(bad)).map(cell));
            cells.push(Cell { faulty: true, ..cell(Strategy::Random(10_000)) });
            cells.push(Cell { leases: 16, jobs: 8, job: 40, ..cell(Strategy::Sleeps(100)) });
            cells.push(Cell { churn: true, ..cell(Strategy::Random(10_000)) });
        }
    }
    for (seed, cell) in (1..).zip(&mut cells) {
        cell.seed = seed;
        if mode == VerifyMode::Full {
            cell.job = 20;
        }
    }
    cells
}

/// The same share of everybody's answers looked at, whatever the record.
pub fn flat(share_ppm: u32) -> AuditPolicy {
    AuditPolicy { error_ppm: u32::MAX, rate_min_ppm: share_ppm, probation: 0, ..AuditPolicy::default() }
}

/// An audit rate of one over the number of clean shards.
pub fn one_over_n() -> AuditPolicy {
    AuditPolicy { error_ppm: 1_000_000, bad_ppm: 1_000_000, rate_min_ppm: 0, probation: 0, ..AuditPolicy::default() }
}

/// What other systems do, by the same code.
pub fn comparisons(size: Size) -> Vec<Cell> {
    let with = |instead, policy, strategy| Cell {
        // From the first clean shard on: before it every rate is one.
        start: 1,
        instead: Some(instead),
        policy,
        ..ordinary(strategy, VerifyMode::Spotcheck, 20, 10, size)
    };
    vec![
        with("flat 5%", flat(50_000), Strategy::Random(1_000_000)),
        with("flat 10%", flat(100_000), Strategy::Random(1_000_000)),
        with("1/n", one_over_n(), Strategy::Random(100_000)),
        with("1/n", one_over_n(), Strategy::Random(10_000)),
        with("1/n", one_over_n(), Strategy::Sleeps(100)),
    ]
}
