//! How many units make a shard.
//!
//! A function of units, expected fuel and policy alone: never of the agents that happen to be connected. The result
//! does not depend on it either; it decides only how well the work spreads.

use forge_contract::envelope::Policy;
use forge_contract::limits::{SHARD_UNITS_MAX, SHARDS_MAX};

/// Shards aimed at, per agent of `policy.max_agents`: enough that a slow agent holds back a small share.
const SHARDS_PER_AGENT: u64 = 4;
/// Shards aimed at where the policy names fewer agents or none: agents have several cores.
const SHARDS_AIM: u64 = 64;
/// A shard should not be longer than this (about 4 s): what a lost agent loses.
const SHARD_FUEL_MAX: u64 = 4_000_000_000;
/// A shard should not be shorter than this (about 20 ms): below it the way costs more than the work.
const SHARD_FUEL_MIN: u64 = 20_000_000;
/// What starting a fresh instance costs, in fuel: an empty unit takes about a tenth of a millisecond.
const UNIT_OVERHEAD: u64 = 100_000;

/// Most units a stage can have: [`SHARDS_MAX`] shards of [`SHARD_UNITS_MAX`] units.
pub const UNITS_PLANNED_MAX: u64 = SHARDS_MAX * SHARD_UNITS_MAX;

/// Units per shard (a power of two) and number of shards; `None` above [`UNITS_PLANNED_MAX`].
///
/// `most` is how many units' fragments one report can carry, where they do not fold into less.
/// `step`: the units between the first checkpoints of a stage that may end early. Its shards are no longer, and what
/// is spread over agents is the work up to the first checkpoint.
pub fn shards(units: u64, fuel_expected: u64, most: u64, policy: &Policy, step: Option<u64>) -> Option<(u64, u32)> {
    let least = units.div_ceil(SHARDS_MAX).max(1).next_power_of_two();
    if least > SHARD_UNITS_MAX {
        return None;
    }
    let wanted = match policy.shards {
        Some(target) => nearest(units, u64::from(target)),
        None => automatic(step.map_or(units, |step| units.min(4 * step)), fuel_expected, policy),
    };
    let longest = step.unwrap_or(SHARD_UNITS_MAX).clamp(least, SHARD_UNITS_MAX);
    let shard_units = wanted.min(floor_power(most)).clamp(least, longest);
    u32::try_from(units.div_ceil(shard_units)).ok().map(|shards| (shard_units, shards))
}

/// The power of two that gives a number of shards nearest to the target.
fn nearest(units: u64, target: u64) -> u64 {
    let few = units.div_ceil(target.max(1)).next_power_of_two();
    let many = (few / 2).max(1);
    let (below, above) = (units.div_ceil(few), units.div_ceil(many));
    if target.abs_diff(below) <= above.abs_diff(target) { few } else { many }
}

fn automatic(units: u64, fuel_expected: u64, policy: &Policy) -> u64 {
    let unit_fuel = fuel_expected.saturating_add(UNIT_OVERHEAD);
    let aim = policy.max_agents.saturating_mul(SHARDS_PER_AGENT).max(SHARDS_AIM);
    let spread = floor_power(units / aim);
    let longest = floor_power(SHARD_FUEL_MAX / unit_fuel);
    let shortest = SHARD_FUEL_MIN.div_ceil(unit_fuel).next_power_of_two();
    // Never so long that the agents the policy wishes for cannot all have one.
    let parallel = floor_power(units / policy.min_agents.max(1));
    spread.max(shortest).min(longest).min(parallel)
}

/// The largest power of two that is at most `number`, and 1 for 0.
fn floor_power(number: u64) -> u64 {
    1 << (63 - number.max(1).leading_zeros())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::envelope::{Requires, Target, VerifyMode};
    use proptest::prelude::*;

    fn policy(min_agents: u64, max_agents: u64, shards: Option<u32>) -> Policy {
        Policy {
            target: Target::Any,
            min_agents,
            max_agents,
            timeout_ms: 0,
            verify: VerifyMode::None,
            shards,
            strict_agents: false,
            requires: Requires::default(),
        }
    }

    #[test]
    fn known_jobs() {
        let mc = 33_000_000;
        // (units, fuel, policy) -> (units per shard, shards)
        let cases = [
            ((16, mc, policy(1, 10, None)), (1, 16)),
            ((153, mc, policy(1, 50, None)), (1, 153)),
            ((1_526, mc, policy(1, 10, None)), (16, 96)),
            ((1_526, mc, policy(1, 0, Some(7))), (256, 6)),
            ((1_526, mc, policy(1, 0, Some(10))), (128, 12)),
            ((223, mc, policy(1, 0, Some(1))), (256, 1)),
            ((15_259, mc, policy(0, 0, None)), (64, 239)),
            ((1, 10_000_000_000, policy(0, 0, None)), (1, 1)),
            ((16, 1_000, policy(0, 0, None)), (16, 1)),
            ((16, 1_000, policy(4, 0, None)), (4, 4)),
            ((100_000, 5_000, policy(0, 0, None)), (1024, 98)),
        ];
        for ((units, fuel, policy), expected) in cases {
            assert_eq!(shards(units, fuel, u64::MAX, &policy, None).unwrap(), expected, "{units} units");
        }
    }

    proptest! {
        #[test]
        fn every_stage_up_to_the_limit_fits(
            units in 1u64..=UNITS_PLANNED_MAX,
            fuel in 1u64..(1 << 50),
            agents in (0u64..1000, 0u64..1000),
            target in proptest::option::of(1u32..=100_000),
            stops: bool,
            most in 1u64..100_000,
        ) {
            let step = stops.then(|| crate::converge::step(units));
            let (shard_units, count) = shards(units, fuel, most, &policy(agents.0, agents.1, target), step).unwrap();
            prop_assert!(step.is_none_or(|step| shard_units <= step));
            prop_assert!(shard_units <= most.max(units.div_ceil(SHARDS_MAX).next_power_of_two()));
            prop_assert!(shard_units.is_power_of_two() && shard_units <= SHARD_UNITS_MAX);
            prop_assert!(u64::from(count) <= SHARDS_MAX);
            prop_assert_eq!(u64::from(count), units.div_ceil(shard_units));
        }
    }

    #[test]
    fn beyond_the_limit_there_is_no_plan() {
        assert!(shards(UNITS_PLANNED_MAX + 1, 1, u64::MAX, &policy(0, 0, None), None).is_none());
    }
}
