//! Whether a project can afford a job, and until when it cannot.

use serde::{Deserialize, Serialize};

use crate::Millis;

const DAY_MS: u64 = 86_400_000;

/// What of a project's spending a budget looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// What was charged in the calendar month, UTC.
    Month,
    /// Whatever was ever charged.
    Total,
    /// The account's balance: what was granted and not spent, with the budget as a credit line on top.
    Prepaid,
}

impl Period {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Total => "total",
            Self::Prepaid => "prepaid",
        }
    }

    /// The period of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Month, Self::Total, Self::Prepaid].into_iter().find(|period| period.as_str() == text)
    }
}

/// The most a project may spend. A project without one is unlimited and pays afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Micro-credits.
    pub budget_micro: u64,
    /// What counts.
    pub period: Period,
}

/// What a project has spent, as far as its budget counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Charged in the period, micro-credits.
    pub charged_micro: u64,
    /// Granted, micro-credits; counts for [`Period::Prepaid`] alone.
    pub granted_micro: u64,
    /// Set aside for jobs that run, micro-credits.
    pub held_micro: u64,
}

/// A job that a project cannot afford.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverBudget {
    /// The budget.
    pub budget: Budget,
    /// What counts against it.
    pub spending: Spending,
    /// What the job needs, micro-credits.
    pub asked_micro: u64,
    /// When the budget begins anew, ms since 1970; `None` where it does not.
    pub resets_ms: Option<Millis>,
}

impl Budget {
    /// The beginning of the time whose charges count, ms since 1970.
    #[must_use]
    pub fn since(&self, now_ms: Millis) -> Millis {
        match self.period {
            Period::Month => month(now_ms).0,
            Period::Total | Period::Prepaid => 0,
        }
    }

    /// When it begins anew, ms since 1970.
    #[must_use]
    pub fn resets(&self, now_ms: Millis) -> Option<Millis> {
        (self.period == Period::Month).then(|| month(now_ms).1)
    }

    /// What is left, micro-credits; less than 0 where more was spent, before the budget was set or lowered.
    #[must_use]
    pub fn left(&self, spending: &Spending) -> i128 {
        let granted = if self.period == Period::Prepaid { spending.granted_micro } else { 0 };
        i128::from(self.budget_micro) + i128::from(granted)
            - i128::from(spending.charged_micro)
            - i128::from(spending.held_micro)
    }

    /// Whether a job that may cost this much can be afforded.
    ///
    /// # Errors
    /// That it cannot, with every number that decided it.
    pub fn afford(&self, spending: Spending, asked_micro: u64, now_ms: Millis) -> Result<(), OverBudget> {
        if i128::from(asked_micro) <= self.left(&spending) {
            return Ok(());
        }
        Err(OverBudget { budget: *self, spending, asked_micro, resets_ms: self.resets(now_ms) })
    }
}

/// Days since 1970 of the first day of a month.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_of(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + day_of_era).saturating_sub(719_468)
}

/// Year and month, 1 to 12, of a time in UTC.
///
/// Source: as [`days_of`], `civil_from_days`.
fn civil(now_ms: Millis) -> (u64, u64) {
    let shifted = now_ms / DAY_MS + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month)
}

/// Beginning and end of the calendar month of a time, UTC, ms since 1970.
#[must_use]
pub fn month(now_ms: Millis) -> (Millis, Millis) {
    let (year, month) = civil(now_ms);
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    (days_of(year, month) * DAY_MS, days_of(next_year, next) * DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar() {
        // GNU date -u -d 'YYYY-MM-01' +%s gives the same.
        for (now, begins, ends) in [
            (0, 0, 2_678_400),
            (951_782_400, 949_363_200, 951_868_800),
            (1_709_164_800, 1_706_745_600, 1_709_251_200),
            (1_798_761_599, 1_796_083_200, 1_798_761_600),
            (4_107_542_400, 4_107_542_400, 4_110_220_800),
        ] {
            assert_eq!(month(now * 1000 + 7), (begins * 1000, ends * 1000), "{now}");
        }
    }

    #[test]
    fn what_is_left_decides_to_the_last_micro_credit() {
        let spending = Spending { charged_micro: 60, granted_micro: 100, held_micro: 30 };
        let budget = Budget { budget_micro: 100, period: Period::Month };
        assert_eq!(budget.left(&spending), 10);
        assert_eq!(budget.afford(spending, 10, 0), Ok(()));
        let refused = OverBudget { budget, spending, asked_micro: 11, resets_ms: Some(2_678_400_000) };
        assert_eq!(budget.afford(spending, 11, 0), Err(refused));
        let prepaid = Budget { budget_micro: 0, period: Period::Prepaid };
        assert_eq!((prepaid.left(&spending), prepaid.resets(7), prepaid.since(7)), (10, None, 0));
        let lowered = Budget { budget_micro: 5, period: Period::Total };
        assert_eq!(lowered.left(&spending), -85);
        assert!(lowered.afford(spending, 0, 0).is_err(), "over it already");
        assert_eq!(
            [Period::Month, Period::Total, Period::Prepaid].map(|p| Period::parse(p.as_str())),
            [Some(Period::Month), Some(Period::Total), Some(Period::Prepaid)]
        );
    }
}
