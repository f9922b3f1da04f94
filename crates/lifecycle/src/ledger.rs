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
    let credits = u128::from(fuel) * 1_000_000;
    let credits = credits.div_ceil(u128::from(rates.fuel_per_credit.max(1)));
    let eur = (credits * u128::from(rates.eur_micro_per_credit)).div_ceil(1_000_000);
    Bill {
        credits_micro: u64::try_from(credits).unwrap_or(u64::MAX),
        eur_micro: u64::try_from(eur).unwrap_or(u64::MAX),
        charged: mode == BillingMode::Billable,
    }
}
