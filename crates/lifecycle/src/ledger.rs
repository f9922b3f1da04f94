//! What verified fuel costs, in integers.

use forge_contract::envelope::BillingMode;
use serde::{Deserialize, Serialize};

/// A price list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Fuel per credit.
    pub fuel_per_credit: u64,
    /// Micro-euros per credit.
    pub eur_micro_per_credit: u64,
}

impl Default for Rates {
    /// A default price list of 3e9 fuel per credit and 0.12 EUR per credit: the ratio of the product pages' example.
    fn default() -> Self {
        Self { fuel_per_credit: 3_000_000_000, eur_micro_per_credit: 120_000 }
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
}

/// The bill for verified fuel; rounds up to the next micro-credit and saturates.
#[must_use]
pub fn bill(rates: &Rates, mode: BillingMode, fuel: u64) -> Bill {
    let credits_micro = credits_micro(rates, fuel);
    let eur = (u128::from(credits_micro) * u128::from(rates.eur_micro_per_credit)).div_ceil(1_000_000);
    Bill { credits_micro, eur_micro: u64::try_from(eur).unwrap_or(u64::MAX), charged: mode == BillingMode::Billable }
}

/// Micro-credits for an amount of fuel; rounds up and saturates.
#[must_use]
pub fn credits_micro(rates: &Rates, fuel: u64) -> u64 {
    let credits = (u128::from(fuel) * 1_000_000).div_ceil(u128::from(rates.fuel_per_credit.max(1)));
    u64::try_from(credits).unwrap_or(u64::MAX)
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
            Bill { credits_micro: 1_000_000, eur_micro: 120_000, charged: true }
        );
        assert_eq!(bill(&rates, BillingMode::Test, 1), Bill { credits_micro: 1, eur_micro: 1, charged: false });
        assert_eq!(
            bill(&Rates { fuel_per_credit: 0, eur_micro_per_credit: u64::MAX }, BillingMode::Billable, u64::MAX)
                .eur_micro,
            u64::MAX
        );
    }
}
