//! A job's end in money: what is billed, who earns it, and the transaction that says so.
//!
//! A result is charged, and so is what was accepted before a client cancelled, or before its kernel failed as it would on
//! every machine. A failure of agents or of the platform costs nothing. `test` states what it would cost and moves nothing.

use forge_contract::envelope::BillingMode;
use forge_contract::failure::Blame;
use forge_contract::{Failure, FailureCode, LeaseId};
use forge_lifecycle::action::JobOutcome;
use forge_lifecycle::books::budget::{OverBudget, Period};
use forge_lifecycle::books::price::{Charge, burned, pay};
use forge_lifecycle::books::{Bearer, Pay, Stamp, Transaction};
use forge_lifecycle::bundle::erratum::ErratumVerdict;
use forge_lifecycle::bundle::leaf::ShardRecord;
use forge_lifecycle::ledger::{Bill, MICRO_MAX};
use forge_lifecycle::settle::Backed;
use tokio::task::JoinHandle;

use super::board::{JobInfo, LiveJob};
use super::errata;
use crate::store::books::{Corrected, Settlement};
use crate::store::{ErratumEnd, NewStake, RestoredJob, StoreError};

/// What a job's end comes to.
pub(super) struct Reckoning {
    pub(super) bill: Bill,
    pub(super) stakes: Vec<NewStake>,
    pub(super) settlement: Settlement,
}

/// Whether what was accepted counts: somebody wanted it, and it was there to be had.
fn is_owed(outcome: &JobOutcome) -> bool {
    match outcome {
        JobOutcome::Completed(_) | JobOutcome::Cancelled { .. } => true,
        JobOutcome::Failed { failure, .. } => matches!(failure.code.blame(), Blame::Kernel | Blame::Client),
    }
}

/// Reckons a job that ended at `at_ms` with these accepted shards, for which so much was held.
pub(super) fn reckon(
    info: &JobInfo,
    outcome: &JobOutcome,
    shards: &[ShardRecord],
    erratum: Option<&ErratumEnd>,
    (held_micro, at_ms): (Option<u64>, u64),
) -> Result<Reckoning, StoreError> {
    let (tariff, mode) = (&info.terms.tariff, info.envelope.ctx.billing.mode);
    let all: Vec<Backed<'_>> =
        if is_owed(outcome) { shards.iter().map(ShardRecord::backed).collect() } else { Vec::new() };
    // Of an erratum run only what it ran itself is paid for: the rest was before.
    let own = |after: LeaseId| -> Vec<Backed<'_>> {
        let own = shards.iter().filter(|shard| shard.lease > after);
        own.map(ShardRecord::backed).collect()
    };
    let (fuel, check_fuel) = burned(all.iter().copied());
    // An erratum run has no hold: what is held or was is the other job's.
    let held_micro = held_micro.filter(|_| mode == BillingMode::Billable && info.erratum.is_none());
    let charge = Charge::of(tariff, held_micro, fuel, check_fuel);
    let paid = match info.erratum {
        Some(run) if matches!(outcome, JobOutcome::Completed(_)) => own(run.after),
        Some(_) => Vec::new(),
        None => all,
    };
    let earned = if mode == BillingMode::Billable { pay(tariff, paid.iter().copied()) } else { Vec::new() };
    let transaction = transaction(info, &charge, &earned, (held_micro, at_ms))?;
    let bill = charge.bill(tariff, mode, held_micro);
    let correction = erratum.zip(info.erratum).filter(|(end, _)| end.verdict == ErratumVerdict::Corrected);
    let correction = correction.filter(|_| mode == BillingMode::Billable).map(|(end, run)| Corrected {
        job: run.of,
        run: info.job,
        // Without a result nothing was worth its price.
        fair_micro: end.after.map_or(0, |_| charge.charged_micro),
    });
    Ok(Reckoning {
        // The platform pays for its own errata.
        bill: Bill { charged: bill.charged && info.erratum.is_none(), ..bill },
        stakes: errata::stakes(&paid, &earned),
        settlement: Settlement { charge, eur_micro: bill.eur_micro, transaction, correction },
    })
}

fn transaction(
    info: &JobInfo,
    charge: &Charge,
    earned: &[Pay],
    (held_micro, at_ms): (Option<u64>, u64),
) -> Result<Transaction, StoreError> {
    let project = &*info.project;
    let bearer = match info.erratum {
        Some(_) => Bearer::Platform { project },
        None => Bearer::Client { project, held_micro },
    };
    // What `test` states moves nothing.
    let nothing = Charge::default();
    let charge = if info.envelope.ctx.billing.mode == BillingMode::Billable { charge } else { &nothing };
    Ok(Transaction::settle(stamp(at_ms), info.job, bearer, charge, earned)?)
}

/// A job's end that costs nothing, because its record cannot be read any more.
pub(super) fn refund(stored: &RestoredJob) -> Result<Settlement, StoreError> {
    let project = stored.project.as_str();
    let bearer = match stored.erratum {
        Some(_) => Bearer::Platform { project },
        None => Bearer::Client { project, held_micro: stored.terms.held_micro },
    };
    let charge = Charge::default();
    let transaction = Transaction::settle(stamp(crate::clock::unix_ms()), stored.job, bearer, &charge, &[])?;
    Ok(Settlement { charge, eur_micro: 0, transaction, correction: None })
}

fn stamp(at_ms: u64) -> Stamp {
    Stamp { at_ms, salt: u128::from_le_bytes(crate::clock::random()) }
}

/// What a job burned so far, against what is set aside for it.
#[derive(Debug, Default)]
pub(super) struct Meter {
    fuel: u64,
    check_fuel: u64,
    asked_micro: u64,
    /// What was set aside beyond the first hold, as each request for it ends.
    pub(super) raises: Vec<JoinHandle<u64>>,
}

impl Meter {
    /// Counts an accepted shard with the answers that confirmed it and the looks at it. What is forgotten later stays
    /// counted: it may be needed again, and what is not comes back.
    pub(super) fn count(&mut self, shard: Backed<'_>) {
        self.fuel = self.fuel.saturating_add(shard.fuel);
        self.check_fuel = self.check_fuel.saturating_add(shard.check_fuel());
    }

    /// How much more has to be set aside: what is short and a quarter of all on top. Counts it as asked for.
    pub(super) fn short_of(&mut self, info: &JobInfo) -> Option<u64> {
        let held = info.terms.held_micro?;
        if info.envelope.ctx.billing.mode != BillingMode::Billable || info.erratum.is_some() {
            return None;
        }
        let held = held.saturating_add(self.asked_micro);
        let burned = Charge::of(&info.terms.tariff, None, self.fuel, self.check_fuel).charged_micro;
        if burned <= held {
            return None;
        }
        let micro = burned.saturating_add(burned / 4).min(MICRO_MAX).saturating_sub(held);
        self.asked_micro = self.asked_micro.saturating_add(micro);
        Some(micro).filter(|micro| *micro > 0)
    }

    /// What was set aside beyond the first hold, once every request for it has ended.
    pub(super) async fn raised(&mut self) -> u64 {
        let mut micro = 0u64;
        for raise in self.raises.drain(..) {
            micro = micro.saturating_add(raise.await.unwrap_or(0));
        }
        micro
    }
}

/// Why a job cannot be afforded, for people.
#[must_use]
pub fn over_budget(over: &OverBudget) -> Failure {
    let OverBudget { budget, spending, asked_micro, resets_ms } = over;
    let name = match budget.period {
        Period::Month => "a month",
        Period::Total => "in all",
        Period::Prepaid => "beyond what was granted",
    };
    let granted = match budget.period {
        Period::Prepaid => format!("{} granted, ", spending.granted_micro),
        Period::Month | Period::Total => String::new(),
    };
    let resets = resets_ms.map_or_else(String::new, |at| format!("; it begins anew at {}", crate::clock::rfc3339(at)));
    let detail = format!(
        "the project's budget of {} micro-credits {name} does not allow this job: {granted}{} spent, {} held for jobs that \
         run, {} left, {asked_micro} needed{resets}",
        budget.budget_micro,
        spending.charged_micro,
        spending.held_micro,
        budget.left(spending).max(0),
    );
    Failure::new(FailureCode::RequestQuota, detail)
}

/// A job that was ended because its project could not afford it any longer, in these words.
pub(super) fn outcome_of(live: &LiveJob, outcome: JobOutcome) -> JobOutcome {
    match (live.over(), outcome) {
        (Some(over), JobOutcome::Cancelled { summary }) => JobOutcome::Failed { failure: over_budget(over), summary },
        (_, outcome) => outcome,
    }
}
