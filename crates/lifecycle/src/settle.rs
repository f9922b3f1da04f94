//! Settlement: when what an agent did for a job counts for good, and what it earns by it.
//!
//! A finished job is provisional while work in it rests on agents that could still be refuted. What one agent did for
//! one job is a *stake*; it settles once its agent has had enough further shards accepted, each of them open to an
//! audit, or once time enough has passed. An agent that is refuted before loses what it holds.
//!
//! **Source**: a hold of (1 - q) / q shards' pay makes lazy cheating lose money where answers are audited at the rate q:
//! one fake gains a shard's pay with probability 1 - q and loses the hold with probability q. [`hold_shards`] is that
//! number, 19 at the smallest rate of 5%; the default of 1,400 further shards is far above it, because a hold is lost
//! whole while a result must be right: at 5% an agent that fakes one shard in a hundred is caught within 1,400 shards
//! with probability 1 - (1 - 0.01 * 0.05)^1400, one half, and one that fakes a tenth with 0.999.

use std::collections::BTreeMap;

use forge_contract::AgentId;
use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::verify::{Looked, Verdict};

/// One million: shares are counted in parts of it.
const MILLION: u64 = 1_000_000;
/// Wait after the first failed erratum run, milliseconds; doubles with each further one.
const RETRY_MS: u64 = 60_000;
/// Longest wait between two erratum runs of one job, milliseconds.
const RETRY_MS_MAX: u64 = 6 * 3600 * 1000;

/// When stakes settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlePolicy {
    /// Further accepted shards of an agent until a stake of it settles.
    pub shards: u64,
    /// Time until it settles in any case, milliseconds.
    pub ms: Millis,
}

impl Default for SettlePolicy {
    fn default() -> Self {
        Self { shards: 1_400, ms: 7 * 24 * 3600 * 1000 }
    }
}

/// A point in an agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Shards accepted from it since it enrolled.
    pub accepted: u64,
    /// When.
    pub at: Millis,
}

/// What settles at a point in an agent's life: a stake taken at or before one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Accepted shards of the agent when the stake was taken; `None` where no stake is old enough.
    pub accepted: Option<u64>,
    /// When the stake was taken; `None` where no stake is old enough.
    pub at: Option<Millis>,
}

impl SettlePolicy {
    /// What settles now. An agent that is quarantined settles nothing: nobody asks this for it.
    #[must_use]
    pub fn due(&self, now: Mark) -> Due {
        Due { accepted: now.accepted.checked_sub(self.shards), at: now.at.checked_sub(self.ms) }
    }

    /// Whether a stake taken at `taken` settles now.
    #[must_use]
    pub fn settles(&self, taken: Mark, now: Mark) -> bool {
        let due = self.due(now);
        due.accepted.is_some_and(|most| taken.accepted <= most) || due.at.is_some_and(|latest| taken.at <= latest)
    }
}

/// Shards whose pay must be held for lazy cheating to lose money at an audit rate (per million): (1 - q) / q, rounded up.
#[must_use]
pub fn hold_shards(rate_ppm: u32) -> u64 {
    let rate = u64::from(rate_ppm).clamp(1, MILLION);
    (MILLION - rate).div_ceil(rate)
}

/// How long a failed erratum run waits for the next one, milliseconds, after this many failed.
#[must_use]
pub fn retry_ms(failed: u32) -> u64 {
    let doubled = 1u64.checked_shl(failed.saturating_sub(1)).unwrap_or(u64::MAX);
    RETRY_MS.saturating_mul(doubled).min(RETRY_MS_MAX)
}

/// What of a job rests on one agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Shards accepted from it that nobody else gave the same bits of.
    pub shards_alone: u64,
    /// Fuel of these.
    pub fuel_alone: u64,
    /// Shards of which it and others gave the same bits, whoever's answer was taken.
    pub shards_confirmed: u64,
    /// Fuel of these, and of its looks at the answers of others.
    pub fuel_confirmed: u64,
}

impl Share {
    /// Fuel it is paid for: a check is work as a first run is, and looks like one.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.fuel_alone.saturating_add(self.fuel_confirmed)
    }
}

/// An accepted shard, as settlement sees it.
#[derive(Clone, Copy, Debug)]
pub struct Backed<'a> {
    /// The agent whose answer was taken.
    pub agent: AgentId,
    /// Others that gave the same bits.
    pub agreed: &'a [AgentId],
    /// Fuel of its units.
    pub fuel: u64,
    /// Cheap looks at it.
    pub looks: &'a [Looked],
    /// Agents that were found wrong about it.
    pub refuted: &'a [AgentId],
}

/// The greatest part of a shard's fuel that its kernel's own check is paid for, as one over this: what a check takes is
/// the agent's word alone, and nobody gains by saying more.
pub const CHECK_PART: u64 = 20;

impl<'a> Backed<'a> {
    /// An accepted shard.
    #[must_use]
    pub fn of(agent: AgentId, verdict: &'a Verdict, fuel: u64) -> Self {
        Self { agent, agreed: &verdict.agreed, fuel, looks: &verdict.looks, refuted: &verdict.refuted }
    }

    /// Who is paid for looking at it, and for how much fuel: everybody who was not found wrong. A unit that ran again
    /// burned what the accepted answer did, or who ran it was wrong; of a check at most one part in [`CHECK_PART`] counts.
    pub fn looks_paid(self) -> impl Iterator<Item = (AgentId, u64)> + 'a {
        let looks = self.looks.iter().filter(move |look| !self.refuted.contains(&look.agent));
        looks.map(move |look| {
            let most = if look.unit.is_some() { self.fuel } else { self.fuel / CHECK_PART };
            (look.agent, look.fuel.min(most))
        })
    }

    /// Fuel of the answers that only confirmed it and of the looks at it; saturates.
    #[must_use]
    pub fn check_fuel(self) -> u64 {
        let copies = self.fuel.saturating_mul(self.agreed.len() as u64);
        self.looks_paid().fold(copies, |sum, (_, fuel)| sum.saturating_add(fuel))
    }
}

/// What of a job rests on whom. Order: by agent; the order of the shards changes nothing.
#[must_use]
pub fn shares<'a>(shards: impl IntoIterator<Item = Backed<'a>>) -> BTreeMap<AgentId, Share> {
    let mut shares: BTreeMap<AgentId, Share> = BTreeMap::new();
    for backed in shards {
        let Backed { agent, agreed, fuel, .. } = backed;
        if agreed.is_empty() {
            let share = shares.entry(agent).or_default();
            share.shards_alone += 1;
            share.fuel_alone = share.fuel_alone.saturating_add(fuel);
        }
        let confirmed = core::iter::once(&agent).filter(|_| !agreed.is_empty()).chain(agreed);
        for agent in confirmed {
            let share = shares.entry(*agent).or_default();
            share.shards_confirmed += 1;
            share.fuel_confirmed = share.fuel_confirmed.saturating_add(fuel);
        }
        for (agent, fuel) in backed.looks_paid() {
            let share = shares.entry(agent).or_default();
            share.fuel_confirmed = share.fuel_confirmed.saturating_add(fuel);
        }
    }
    shares
}

/// What of a finished job runs again: the first stage with shards that nobody trusted stands behind, and which of its
/// shards those are. Later stages read what it gave, so they run again whole. `None` where everything is backed.
///
/// Order: the indices rise.
#[must_use]
pub fn tainted<'a>(
    shards: impl IntoIterator<Item = ((u32, u32), Backed<'a>)>,
    is_out: impl Fn(&AgentId) -> bool,
) -> Option<(u32, Vec<u32>)> {
    let mut by_stage: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for ((stage, shard), Backed { agent, agreed, .. }) in shards {
        if core::iter::once(&agent).chain(agreed).all(&is_out) {
            by_stage.entry(stage).or_default().push(shard);
        }
    }
    let (stage, mut shards) = by_stage.pop_first()?;
    shards.sort_unstable();
    Some((stage, shards))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_contract::{Digest, LeaseId};

    fn agent(number: u8) -> AgentId {
        AgentId(Digest::of(&[number]))
    }

    fn backed<'a>(agent: AgentId, agreed: &'a [AgentId], fuel: u64) -> Backed<'a> {
        Backed { agent, agreed, fuel, looks: &[], refuted: &[] }
    }

    #[test]
    fn a_stake_settles_by_shards_or_by_time() {
        let policy = SettlePolicy { shards: 10, ms: 1_000 };
        let taken = Mark { accepted: 5, at: 100 };
        for (accepted, at, expected) in [
            (5, 100, false),
            (14, 1_099, false),
            (15, 100, true),
            (5, 1_100, true),
            (400, 1_000_000, true),
            (0, 0, false),
        ] {
            assert_eq!(policy.settles(taken, Mark { accepted, at }), expected, "{accepted} shards, {at} ms");
        }
        // Before enough of either has passed since the beginning, nothing is due, not even a stake of then.
        let early = policy.due(Mark { accepted: 9, at: 999 });
        assert_eq!((early.accepted, early.at), (None, None));
        assert!(policy.settles(Mark { accepted: 0, at: 900 }, Mark { accepted: 10, at: 999 }));
    }

    #[test]
    fn the_hold_makes_lazy_cheating_lose() {
        assert_eq!(hold_shards(50_000), 19);
        assert_eq!((hold_shards(1_000_000), hold_shards(0), hold_shards(500_000)), (0, 999_999, 1));
        let smallest = crate::verify::AuditPolicy::default().rate_min_ppm;
        assert!(SettlePolicy::default().shards >= hold_shards(smallest));
    }

    #[test]
    fn a_failed_erratum_run_waits_longer_each_time() {
        assert_eq!([1, 2, 3, 40].map(retry_ms), [60_000, 120_000, 240_000, RETRY_MS_MAX]);
        assert_eq!(retry_ms(200), RETRY_MS_MAX);
    }

    #[test]
    fn who_stands_alone_and_who_was_confirmed() {
        let (a, b, c) = (agent(1), agent(2), agent(3));
        let found = shares([backed(a, &[], 5), backed(a, &[b, c], 7), backed(b, &[], u64::MAX), backed(b, &[], 1)]);
        let share = |shards_alone, fuel_alone, shards_confirmed, fuel_confirmed| Share {
            shards_alone,
            fuel_alone,
            shards_confirmed,
            fuel_confirmed,
        };
        let expected = [(a, share(1, 5, 1, 7)), (b, share(2, u64::MAX, 1, 7)), (c, share(0, 0, 1, 7))];
        assert_eq!(found, expected.into_iter().collect());
        assert_eq!(found.get(&a).map(Share::fuel), Some(12));
    }

    #[test]
    fn looks_are_paid_and_a_check_not_by_its_word_alone() {
        let [a, b, c, d] = [1, 2, 3, 4].map(agent);
        let look = |agent, unit, fuel| Looked { agent, lease: LeaseId(1), unit, right: true, error_e18: 0, fuel };
        // One ran a unit again, one checked within what a check may take, one says that it took more than the shard.
        let looks = [look(b, Some(3), 400), look(c, None, 49), look(d, None, 2_000)];
        let shard = |refuted| Backed { agent: a, agreed: &[], fuel: 1_000, looks: &looks, refuted };
        assert_eq!(shard(&[]).looks_paid().collect::<Vec<_>>(), [(b, 400), (c, 49), (d, 1_000 / CHECK_PART)]);
        let wrong = [b];
        assert_eq!(shard(&wrong).looks_paid().map(|(agent, _)| agent).collect::<Vec<_>>(), [c, d]);
        let found = shares([shard(&[])]);
        let looked = |fuel_confirmed| Share { fuel_confirmed, ..Share::default() };
        let expected = [
            (a, Share { shards_alone: 1, fuel_alone: 1_000, ..Share::default() }),
            (b, looked(400)),
            (c, looked(49)),
            (d, looked(50)),
        ];
        assert_eq!(found, expected.into_iter().collect());
    }

    #[test]
    fn what_nobody_trusted_stands_behind_runs_again() {
        let (a, b, c) = (agent(1), agent(2), agent(3));
        let agreed = [b];
        let shards = [
            ((1, 4), backed(a, &[], 1)),
            ((0, 9), backed(a, &[], 1)),
            ((0, 2), backed(a, &agreed, 1)),
            ((0, 3), backed(c, &[], 1)),
        ];
        assert_eq!(tainted(shards, |agent| *agent == a), Some((0, vec![9])), "the later stage goes with the first");
        assert_eq!(
            tainted(shards, |agent| *agent == a || *agent == b),
            Some((0, vec![2, 9])),
            "a clique is no backing"
        );
        assert_eq!(tainted(shards, |agent| *agent == b), None);
    }
}
