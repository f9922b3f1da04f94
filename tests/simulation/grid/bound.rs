//! How many wrong shards may be accepted (docs/verification.md has the derivation).

use forge_lifecycle::verify::AuditPolicy;

use super::cell::{Cell, Tally};

/// Natural logarithm of a million: a true formula fails a gate once in a million seeds.
const LN_MILLION: f64 = 13.815_510_557_964_274;

/// What the gates hold the code to, whatever policy it runs with.
pub const EPS: f64 = 1e-3;
/// The share of bad agents that EPS is said for.
pub const BAD: f64 = 0.2;

/// What a lie can gain at most: an identity with this many accepted shards puts so many expected wrong ones at risk.
pub fn at_stake(accepted: u64) -> f64 {
    let audited_at_least = f64::from(AuditPolicy::default().rate_min_ppm) / 1e6;
    (EPS / BAD * accepted as f64).min((1.0 - audited_at_least) / audited_at_least)
}

/// The promised rate.
pub fn rate(cell: &Cell) -> f64 {
    EPS * (cell.bad_share() / BAD).max(1.0)
}

/// By how much a count may exceed its bound for chance alone: Freedman's inequality for a martingale whose jumps are at
/// most 1 and whose variance is the sum of what was at stake.
pub fn chance(variance: f64) -> f64 {
    let third = LN_MILLION / 3.0;
    third + (third * third + 2.0 * variance * LN_MILLION).sqrt()
}

/// Whether the count of wrong shards is within both bounds: the promise, and the sharper one from what bad agents did.
pub fn holds(cell: &Cell, tally: &Tally) -> bool {
    let chance = chance(tally.variance);
    let wrong = tally.delivered_wrong as f64;
    let promised = rate(cell) * tally.delivered as f64;
    let sharper = EPS / BAD * tally.accepted_of_bad as f64;
    wrong <= promised + chance && wrong <= sharper + chance
}
