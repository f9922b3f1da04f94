//! What a job is expected to cost, what is held for it, and what it costs in the end.
//!
//! The client pays for verified fuel, each shard once. Answers that only confirm others are the platform's to pay, out of
//! its share, unless the tariff makes the client bear a part; they stand on a line of their own either way. What is
//! charged is never more than what was held: a job that burns more is the platform's misjudgement.

use std::collections::BTreeMap;

use forge_contract::AgentId;
use forge_contract::envelope::{BillingMode, VerifyMode};
use serde::{Deserialize, Serialize};

use super::Pay;
use crate::ledger::{Bill, BillLines, MICRO_MAX, Rates, Tariff, credits_micro, eur_micro, part_micro, share_micro};
use crate::plan::Plan;
use crate::settle::Backed;

/// Copies that are expected beside the first answers, per million, by mode: the long-run means of `docs/verification.md`.
const fn copies_ppm(mode: VerifyMode) -> u32 {
    match mode {
        VerifyMode::None => 10_000,
        VerifyMode::Spotcheck => 90_000,
        VerifyMode::Quorum => 1_050_000,
        VerifyMode::Full => 2_000_000,
    }
}

/// What kernels cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList {
    /// What holds where nothing else is said.
    pub usual: Tariff,
    /// Micro-credits for 1e9 fuel, by `name@version`.
    pub kernels: BTreeMap<String, u64>,
}

impl PriceList {
    /// What is agreed for a job of this kernel, `name@version`.
    #[must_use]
    pub fn tariff(&self, kernel: &str) -> Tariff {
        let Some(price_micro) = self.kernels.get(kernel) else { return self.usual };
        let rates = Rates { price_micro: *price_micro, per_fuel: 1_000_000_000, ..self.usual.rates };
        Tariff { rates, ..self.usual }
    }
}

/// What a job is expected to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Fuel of the work.
    pub fuel: u64,
    /// What it costs, micro-credits.
    pub work_micro: u64,
    /// Fuel of the copies that check it.
    pub check_fuel: u64,
    /// What those cost, whoever bears it, micro-credits.
    pub verification_micro: u64,
    /// The client's part of that, micro-credits.
    pub verification_charged_micro: u64,
    /// What the client is expected to be charged, micro-credits.
    pub credits_micro: u64,
    /// The same, micro-euros.
    pub eur_micro: u64,
    /// What is held at acceptance, and the most that can be charged, micro-credits.
    pub hold_micro: u64,
}

/// What a planned job is expected to cost.
#[must_use]
pub fn estimate(tariff: &Tariff, plan: &Plan) -> Estimate {
    let fuel = plan.quote.fuel;
    let check_fuel = part_micro(fuel, copies_ppm(plan.verify));
    let (work_micro, verification_micro) =
        (credits_micro(&tariff.rates, fuel), credits_micro(&tariff.rates, check_fuel));
    let verification_charged_micro = part_micro(verification_micro, tariff.verification_ppm);
    let credits = work_micro.saturating_add(verification_charged_micro).min(MICRO_MAX);
    // No unit can burn more than its limit: beyond that nothing need be held.
    let limit =
        plan.stages.iter().fold(0u64, |sum, stage| sum.saturating_add(stage.units.saturating_mul(stage.limits.fuel)));
    let most = credits_micro(&tariff.rates, limit).saturating_add(part_micro(
        credits_micro(&tariff.rates, part_micro(limit, copies_ppm(plan.verify))),
        tariff.verification_ppm,
    ));
    Estimate {
        fuel,
        work_micro,
        check_fuel,
        verification_micro,
        verification_charged_micro,
        credits_micro: credits,
        eur_micro: eur_micro(&tariff.rates, credits),
        hold_micro: part_micro(credits, tariff.hold_ppm).min(most.max(credits)),
    }
}

/// What a job costs in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Verified fuel that is billed.
    pub fuel: u64,
    /// Fuel of accepted answers that only confirmed others.
    pub check_fuel: u64,
    /// What the work costs, micro-credits.
    pub work_micro: u64,
    /// What checking it costs, whoever bears it, micro-credits.
    pub verification_micro: u64,
    /// The client's part of that, micro-credits.
    pub verification_charged_micro: u64,
    /// What the client is charged, micro-credits.
    pub charged_micro: u64,
    /// What it cost beyond what was held, micro-credits.
    pub overrun_micro: u64,
}

impl Charge {
    /// The charge for verified fuel and for the copies that checked it, at most what was held.
    #[must_use]
    pub fn of(tariff: &Tariff, held_micro: Option<u64>, fuel: u64, check_fuel: u64) -> Self {
        let work_micro = credits_micro(&tariff.rates, fuel);
        let verification_micro = credits_micro(&tariff.rates, check_fuel);
        let verification_charged_micro = part_micro(verification_micro, tariff.verification_ppm);
        let asked = work_micro.saturating_add(verification_charged_micro);
        let charged_micro = asked.min(held_micro.unwrap_or(u64::MAX));
        Self {
            fuel,
            check_fuel,
            work_micro,
            verification_micro,
            verification_charged_micro,
            charged_micro,
            overrun_micro: asked - charged_micro,
        }
    }

    /// The bill that states it.
    #[must_use]
    pub fn bill(&self, tariff: &Tariff, mode: BillingMode, held_micro: Option<u64>) -> Bill {
        Bill {
            credits_micro: self.charged_micro,
            eur_micro: eur_micro(&tariff.rates, self.charged_micro),
            charged: mode == BillingMode::Billable,
            lines: Some(BillLines {
                tariff: *tariff,
                held_micro,
                fuel: self.fuel,
                work_micro: self.work_micro,
                check_fuel: self.check_fuel,
                verification_micro: self.verification_micro,
                verification_charged_micro: self.verification_charged_micro,
                overrun_micro: self.overrun_micro,
            }),
        }
    }
}

/// Fuel of the accepted shards, each once, and of the answers that only confirmed them and the looks at them; saturates.
#[must_use]
pub fn burned<'a>(shards: impl IntoIterator<Item = Backed<'a>>) -> (u64, u64) {
    shards.into_iter().fold((0u64, 0u64), |(work, checks), shard| {
        (work.saturating_add(shard.fuel), checks.saturating_add(shard.check_fuel()))
    })
}

/// What each agent earns by accepted shards. Order: by agent. Rounds down by agent, so that the pay for work is never more
/// than its price.
#[must_use]
pub fn pay<'a>(tariff: &Tariff, shards: impl IntoIterator<Item = Backed<'a>>) -> Vec<Pay> {
    let mut fuel: BTreeMap<AgentId, (u64, u64)> = BTreeMap::new();
    for shard in shards {
        let work = &mut fuel.entry(shard.agent).or_default().0;
        *work = work.saturating_add(shard.fuel);
        let copies = shard.agreed.iter().map(|agent| (*agent, shard.fuel));
        for (agent, burned) in copies.chain(shard.looks_paid()) {
            let checks = &mut fuel.entry(agent).or_default().1;
            *checks = checks.saturating_add(burned);
        }
    }
    let paid = |(agent, (work, checks)): (AgentId, (u64, u64))| {
        let share = |fuel| share_micro(&tariff.rates, tariff.provider_ppm.min(1_000_000), fuel);
        let work_micro = share(work);
        // All of it is rounded once: a check must not be worth less than a first run.
        Pay { agent, work_micro, checks_micro: share(work.saturating_add(checks)).saturating_sub(work_micro) }
    };
    fuel.into_iter().map(paid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forge_contract::Digest;

    fn agent(number: u8) -> AgentId {
        AgentId(Digest::of(&[number]))
    }

    #[test]
    fn kernels_have_prices_of_their_own() {
        let mut list = PriceList::default();
        list.kernels.insert("mc@1".into(), 500_000);
        assert_eq!(list.tariff("gemm@1"), Tariff::default());
        let special = list.tariff("mc@1");
        assert_eq!(credits_micro(&special.rates, 3_000_000_000), 1_500_000);
        assert_eq!(special.rates.eur_micro_per_credit, 120_000);
    }

    #[test]
    fn a_charge_is_never_more_than_was_held() {
        let tariff = Tariff { verification_ppm: 500_000, ..Tariff::default() };
        let charge = Charge::of(&tariff, Some(1_600_000), 3_000_000_000, 3_000_000_000);
        assert_eq!(
            (charge.work_micro, charge.verification_micro, charge.verification_charged_micro),
            (1_000_000, 1_000_000, 500_000)
        );
        assert_eq!((charge.charged_micro, charge.overrun_micro), (1_500_000, 0));
        let capped = Charge::of(&tariff, Some(1_200_000), 3_000_000_000, 3_000_000_000);
        assert_eq!((capped.charged_micro, capped.overrun_micro), (1_200_000, 300_000));
        assert_eq!(Charge::of(&tariff, None, 3_000_000_000, 0).charged_micro, 1_000_000);
        assert_eq!(Charge::of(&tariff, Some(5), 0, 0), Charge::default());
        let bill = capped.bill(&tariff, BillingMode::Test, None);
        assert_eq!((bill.credits_micro, bill.eur_micro, bill.charged), (1_200_000, 144_000, false));
    }

    #[test]
    fn checks_earn_what_work_earns() {
        let (a, b) = (agent(1), agent(2));
        let agreed = [b];
        let shards = [
            Backed { agent: a, agreed: &agreed, fuel: 3_000_000_000, looks: &[], refuted: &[] },
            Backed { agent: a, agreed: &[], fuel: 1, looks: &[], refuted: &[] },
            Backed { agent: b, agreed: &[], fuel: 6_000_000_000, looks: &[], refuted: &[] },
        ];
        assert_eq!(burned(shards), (9_000_000_001, 3_000_000_000));
        let paid = pay(&Tariff::default(), shards);
        let find = |agent| paid.iter().find(|pay| pay.agent == agent).map(|pay| (pay.work_micro, pay.checks_micro));
        assert_eq!((find(a), find(b)), (Some((800_000, 0)), Some((1_600_000, 800_000))));
    }
}
