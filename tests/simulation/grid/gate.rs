//! What must hold of a cell.

use forge_contract::envelope::VerifyMode;

use super::bound;
use super::cell::{Cell, Tally};
use super::strategy::Strategy;

/// Attempts may exceed what is predicted by this factor.
const OVERHEAD: f64 = 1.1;

/// What is promised of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The bound on errors, nobody harmed, the predicted cost.
    All,
    /// Nothing: the row is shown so that people know.
    Nothing,
}

/// What is promised: nothing under `none` and with other policies than ours, and nothing of agents that agree on their lies where the operator runs no
/// agent to contradict them.
pub fn promise(cell: &Cell) -> Promise {
    match cell.mode {
        VerifyMode::None => Promise::Nothing,
        _ if cell.instead.is_some() => Promise::Nothing,
        _ if cell.strategy.may_agree() && cell.verifiers == 0 => Promise::Nothing,
        _ => Promise::All,
    }
}

/// What is known to break, and is to be mended: the row says so, the run goes on.
///
/// A shard whose only answer is dropped, because its agent was taken out elsewhere, is asked for twice at once from then
/// on, whatever its coin says. A clique that lies from its first shard on makes many of them.
pub fn is_open(cell: &Cell, broken: &[&str]) -> bool {
    let from_the_start = matches!(cell.strategy, Strategy::Gambles(0) | Strategy::Constant);
    cell.mode == VerifyMode::Spotcheck && from_the_start && broken == ["cost"]
}

/// What a cell breaks, whatever is promised of it.
pub fn broken(cell: &Cell, tally: &Tally) -> Vec<&'static str> {
    let mut broken = Vec::new();
    if !bound::holds(cell, tally) {
        broken.push("error");
    }
    if tally.harmed > 0 {
        broken.push("harm");
    }
    if tally.overhead() > OVERHEAD * tally.overhead_predicted() {
        broken.push("cost");
    }
    // Strangers among themselves may find no majority: then jobs fail, and that is all.
    if tally.delivered < cell.shards && cell.verifiers > 0 && cell.mode != VerifyMode::Full {
        broken.push("stuck");
    }
    broken
}
