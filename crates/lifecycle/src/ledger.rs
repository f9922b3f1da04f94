//! What verified fuel costs, in integers.

use forge_contract::envelope::BillingMode;
use serde::{Deserialize, Serialize};

/// The most that any amount may be, micro-credits: what JSON carries exactly, and small enough that sums of very many
/// such amounts fit 64 bits.
pub const MICRO_MAX: u64 = (1 << 53) - 1;

/// What fuel costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Micro-credits for [`Self::per_fuel`] of fuel.
    pub price_micro: u64,
    /// Fuel that costs [`Self::price_micro`]; 0 counts as 1.
    pub per_fuel: u64,
    /// Micro-euros per credit.
    pub eur_micro_per_credit: u64,
}

impl Default for Rates {
    /// 3e9 fuel per credit and 0.12 EUR per credit: the ratio of the product pages' example.
    fn default() -> Self {
        Self { price_micro: 1_000_000, per_fuel: 3_000_000_000, eur_micro_per_credit: 120_000 }
    }
}

/// What a job costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// Micro-credits.
    pub credits_micro: u64,
    /// Micro-euros.
    pub eur_micro: u64,
    /// Whether it is charged (`billable`) or only stated (`test`).
    pub charged: bool,
    /// How it comes about; absent in evidence of before there were price lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<BillLines>,
}

/// How a bill comes about. Nothing here is a rate of today: a job is billed as it was agreed when it was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillLines {
    /// What was agreed.
    pub tariff: Tariff,
    /// What was held at acceptance; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_micro: Option<u64>,
    /// Verified fuel that is billed.
    pub fuel: u64,
    /// What it costs, micro-credits.
    pub work_micro: u64,
    /// Fuel of the answers that only confirmed others.
    pub check_fuel: u64,
    /// What that costs, whoever bears it, micro-credits.
    pub verification_micro: u64,
    /// The client's part of it, micro-credits.
    pub verification_charged_micro: u64,
    /// What the job cost beyond what was held; the platform bears it, micro-credits.
    pub overrun_micro: u64,
}

/// What was agreed for a job when it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// What fuel costs.
    pub rates: Rates,
    /// The provider's share of it, per million.
    pub provider_ppm: u32,
    /// The client's part of what checking costs, per million; the platform bears the rest.
    pub verification_ppm: u32,
    /// What is held, per million of what is expected.
    pub hold_ppm: u32,
}

impl Default for Tariff {
    /// The default rates, 80% to providers, checking at the platform's cost, a quarter more held than is expected.
    fn default() -> Self {
        Self { rates: Rates::default(), provider_ppm: 800_000, verification_ppm: 0, hold_ppm: 1_250_000 }
    }
}

/// The bill for verified fuel by rates alone; rounds up to the next micro-credit.
#[must_use]
pub fn bill(rates: &Rates, mode: BillingMode, fuel: u64) -> Bill {
    let credits_micro = credits_micro(rates, fuel);
    Bill {
        credits_micro,
        eur_micro: eur_micro(rates, credits_micro),
        charged: mode == BillingMode::Billable,
        lines: None,
    }
}

/// Micro-credits for an amount of fuel; rounds up, at most [`MICRO_MAX`].
#[must_use]
pub fn credits_micro(rates: &Rates, fuel: u64) -> u64 {
    let credits = (u128::from(fuel) * u128::from(rates.price_micro)).div_ceil(u128::from(rates.per_fuel.max(1)));
    capped(credits)
}

/// Micro-euros for micro-credits; rounds up, at most [`MICRO_MAX`].
#[must_use]
pub fn eur_micro(rates: &Rates, credits_micro: u64) -> u64 {
    capped((u128::from(credits_micro) * u128::from(rates.eur_micro_per_credit)).div_ceil(MILLION))
}

/// A share of the price of fuel, per million; rounds down, so that all shares of a job never exceed its price.
#[must_use]
pub fn share_micro(rates: &Rates, ppm: u32, fuel: u64) -> u64 {
    // Two steps keep within 128 bits and round down as one would.
    let whole = u128::from(fuel) * u128::from(rates.price_micro);
    let divisor = u128::from(rates.per_fuel.max(1));
    let (full, rest) = (whole / divisor, whole % divisor);
    let ppm = u128::from(ppm);
    let share = full.checked_mul(ppm).map(|full| (full + rest * ppm / divisor) / MILLION);
    capped(share.unwrap_or(u128::MAX))
}

/// A share of an amount, per million; rounds up.
#[must_use]
pub fn part_micro(micro: u64, ppm: u32) -> u64 {
    capped((u128::from(micro) * u128::from(ppm)).div_ceil(MILLION))
}

/// One million: shares are counted in parts of it.
const MILLION: u128 = 1_000_000;

fn capped(micro: u128) -> u64 {
    u64::try_from(micro).unwrap_or(MICRO_MAX).min(MICRO_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bills_round_up_and_never_wrap() {
        let rates = Rates::default();
        assert_eq!(bill(&rates, BillingMode::Test, 0), Bill::default());
        assert_eq!(
            bill(&rates, BillingMode::Billable, 3_000_000_000),
            Bill { credits_micro: 1_000_000, eur_micro: 120_000, charged: true, lines: None }
        );
        assert_eq!(bill(&rates, BillingMode::Test, 1), Bill { credits_micro: 1, eur_micro: 1, ..Bill::default() });
        let extreme = Rates { price_micro: u64::MAX, per_fuel: 0, eur_micro_per_credit: u64::MAX };
        assert_eq!(bill(&extreme, BillingMode::Billable, u64::MAX).eur_micro, MICRO_MAX);
        assert_eq!(share_micro(&extreme, u32::MAX, u64::MAX), MICRO_MAX);
        assert_eq!(part_micro(MICRO_MAX, u32::MAX), MICRO_MAX);
    }

    #[test]
    fn shares_round_down_and_prices_up() {
        let rates = Rates { price_micro: 1, per_fuel: 3, eur_micro_per_credit: 1 };
        assert_eq!((credits_micro(&rates, 7), share_micro(&rates, 1_000_000, 7)), (3, 2));
        // Two thirds of 7/3 are 14/9: one, where two steps of rounding would also give one; and of 3,000,001/3 by halves.
        assert_eq!(share_micro(&rates, 666_667, 7), 1);
        assert_eq!(share_micro(&rates, 500_000, 3_000_005), 500_000);
        assert_eq!((part_micro(3, 500_000), part_micro(3, 0)), (2, 0));
    }
}
