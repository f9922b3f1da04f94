//! What must hold of a cell.

use forge_contract::envelope::VerifyMode;

use super::bound;
use super::cell::{Cell, Tally};

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
    if tally.delivered < cell.shards && cell.verifiers > 0 {
        broken.push("stuck");
    }
    broken
}
