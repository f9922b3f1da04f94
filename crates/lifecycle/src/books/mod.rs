//! The books: who owes whom what, in double entry.
//!
//! Money moves by [`Transaction`]s alone, each of postings that sum to 0 by construction; amounts are integers of
//! micro-credits. Transactions are added and never changed, and [`chain`] binds each to all before it. What a job costs
//! is [`price`]'s word, whether a project can afford it [`budget`]'s.
//!
//! A job's way through the books: [`Transaction::hold`] at acceptance ([`Transaction::raise`] where it burns more than was
//! expected), one [`Transaction::settle`] at its end, which
//! empties the hold, charges the client and credits providers' held accounts; then [`Transaction::payable`] and
//! [`Transaction::payout`] for each provider, or [`Transaction::forfeit`].

mod account;
pub mod budget;
pub mod chain;
pub mod price;
#[cfg(test)]
mod tests;

use forge_contract::canon;
use forge_contract::{AgentId, Digest, JobId};
use serde::{Deserialize, Serialize};

use crate::Millis;
pub use account::{Account, AccountError};
use price::Charge;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was there before the books were opened.
    Opening,
    /// A project got credits.
    Grant,
    /// Credits were set aside for a job.
    Hold,
    /// More was set aside for a job that burns more than was expected.
    Raise,
    /// A job was charged and its hold emptied.
    Settle,
    /// A job cost nothing and its hold was given back.
    Refund,
    /// A finished job turned out to have cost less.
    Correction,
    /// What an agent held is its own for good.
    Payable,
    /// An agent lost what it held.
    Forfeit,
    /// A provider was paid.
    Payout,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::Opening,
        Self::Grant,
        Self::Hold,
        Self::Raise,
        Self::Settle,
        Self::Refund,
        Self::Correction,
        Self::Payable,
        Self::Forfeit,
        Self::Payout,
    ];

    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Grant => "grant",
            Self::Hold => "hold",
            Self::Raise => "raise",
            Self::Settle => "settle",
            Self::Refund => "refund",
            Self::Correction => "correction",
            Self::Payable => "payable",
            Self::Forfeit => "forfeit",
            Self::Payout => "payout",
        }
    }

    /// The kind of this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A change of one account's balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posting {
    /// Whose.
    pub account: Account,
    /// By how much, micro-credits; as text in JSON, where numbers are doubles.
    #[serde(with = "amount")]
    pub micro: i64,
}

/// When a transaction was made, and what makes its digest unguessable for those who may only see that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When, ms since 1970.
    pub at_ms: Millis,
    /// 128 random bits.
    pub salt: u128,
}

/// Movements of money that belong together. Postings sum to 0, name each account once, in order, and none is 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// What for.
    pub kind: Kind,
    /// When, ms since 1970; as text.
    #[serde(with = "amount")]
    pub at_ms: i64,
    /// The project whose ledger shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The agent it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// A payment's own number, a reason, or the run that corrected a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What moved.
    pub postings: Vec<Posting>,
    /// 32 hexadecimal digits.
    pub salt: String,
}

/// Why something cannot be posted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BooksError {
    /// Postings do not sum to 0.
    #[error("the postings sum to {sum} and not to 0")]
    Unbalanced {
        /// Their sum.
        sum: i128,
    },
    /// An amount does not fit.
    #[error("{micro} micro-credits are more than an account can hold")]
    TooLarge {
        /// The amount.
        micro: i128,
    },
    /// An account twice, out of order, or with nothing.
    #[error("postings name each account once, in order, and none is 0")]
    Form,
}

/// What an agent earns by a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pay {
    /// Who.
    pub agent: AgentId,
    /// For answers that were taken, micro-credits.
    pub work_micro: u64,
    /// For answers that confirmed others', micro-credits.
    pub checks_micro: u64,
}

impl Pay {
    /// All of it.
    #[must_use]
    pub const fn micro(&self) -> u64 {
        self.work_micro.saturating_add(self.checks_micro)
    }
}

/// Who bears a job's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// The client, with what was held; `None` where nothing was, in a job that is older than these books.
    Client {
        /// Its project.
        project: &'a str,
        /// What was held, micro-credits.
        held_micro: Option<u64>,
    },
    /// The platform: an erratum run.
    Platform {
        /// The project that sees it.
        project: &'a str,
    },
}

/// Postings gathered by account.
#[derive(Debug, Default)]
struct Draft(std::collections::BTreeMap<Account, i128>);

impl Draft {
    fn add(&mut self, account: Account, micro: i128) -> &mut Self {
        *self.0.entry(account).or_default() += micro;
        self
    }

    /// Moves an amount from one account to another.
    fn shift(&mut self, from: Account, to: Account, micro: u64) -> &mut Self {
        self.add(from, -i128::from(micro)).add(to, i128::from(micro))
    }

    fn postings(&self) -> Result<Vec<Posting>, BooksError> {
        let amounts = self.0.iter().filter(|(_, micro)| **micro != 0);
        let posting = |(account, micro): (&Account, &i128)| {
            let fits = i64::try_from(*micro).map_err(|_| BooksError::TooLarge { micro: *micro })?;
            Ok(Posting { account: account.clone(), micro: fits })
        };
        amounts.map(posting).collect()
    }
}

impl Transaction {
    fn of(kind: Kind, stamp: Stamp, draft: &Draft) -> Result<Self, BooksError> {
        let made = Self {
            kind,
            at_ms: i64::try_from(stamp.at_ms).unwrap_or(i64::MAX),
            project: None,
            job: None,
            agent: None,
            note: None,
            postings: draft.postings()?,
            salt: format!("{:032x}", stamp.salt),
        };
        made.check()?;
        Ok(made)
    }

    fn in_project(self, project: &str) -> Self {
        Self { project: Some(project.into()), ..self }
    }

    fn of_job(self, job: JobId) -> Self {
        Self { job: Some(job), ..self }
    }

    fn of_agent(self, agent: AgentId) -> Self {
        Self { agent: Some(agent), ..self }
    }

    fn noted(self, note: &str) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// What a project had been charged before there were books.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn opening_project(stamp: Stamp, project: &str, charged_micro: u64) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Project(project.into()), Account::Opening, charged_micro);
        Ok(Self::of(Kind::Opening, stamp, &draft)?.in_project(project))
    }

    /// What an agent had earned before there were books.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn opening_agent(
        stamp: Stamp,
        agent: AgentId,
        held_micro: u64,
        payable_micro: u64,
        forfeited_micro: u64,
    ) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft
            .shift(Account::Opening, Account::Held(agent), held_micro)
            .shift(Account::Opening, Account::Payable(agent), payable_micro)
            .shift(Account::Opening, Account::Forfeited, forfeited_micro);
        Ok(Self::of(Kind::Opening, stamp, &draft)?.of_agent(agent))
    }

    /// A project gets credits; `reference` is the payment's own number.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn grant(stamp: Stamp, project: &str, micro: u64, reference: &str) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Issued, Account::Project(project.into()), micro);
        Ok(Self::of(Kind::Grant, stamp, &draft)?.in_project(project).noted(reference))
    }

    /// Credits are set aside for a job.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn hold(stamp: Stamp, project: &str, job: JobId, micro: u64) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Project(project.into()), Account::Hold(job), micro);
        Ok(Self::of(Kind::Hold, stamp, &draft)?.in_project(project).of_job(job))
    }

    /// More is set aside for a job that burns more than was expected.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn raise(stamp: Stamp, project: &str, job: JobId, micro: u64) -> Result<Self, BooksError> {
        Ok(Self { kind: Kind::Raise, ..Self::hold(stamp, project, job, micro)? })
    }

    /// A job ends: its hold is emptied, its client charged, its providers credited with what they can still lose.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn settle(
        stamp: Stamp,
        job: JobId,
        bearer: Bearer<'_>,
        charge: &Charge,
        pay: &[Pay],
    ) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        let sum = |part: fn(&Pay) -> u64| pay.iter().map(|pay| i128::from(part(pay))).sum::<i128>();
        for earned in pay {
            draft.add(Account::Held(earned.agent), i128::from(earned.micro()));
        }
        let (project, kind) = match bearer {
            Bearer::Client { project, held_micro } => {
                let held = i128::from(held_micro.unwrap_or(0));
                draft
                    .add(Account::Hold(job), -held)
                    .add(Account::Project(project.into()), held - i128::from(charge.charged_micro))
                    .add(Account::Overrun, -i128::from(charge.overrun_micro))
                    .add(Account::Revenue, i128::from(charge.work_micro) - sum(|pay| pay.work_micro))
                    .add(
                        Account::Verification,
                        i128::from(charge.verification_charged_micro) - sum(|pay| pay.checks_micro),
                    );
                let kind = if held > 0 && charge.charged_micro == 0 { Kind::Refund } else { Kind::Settle };
                (project, kind)
            }
            Bearer::Platform { project } => {
                draft.add(Account::Errata, -sum(Pay::micro));
                (project, Kind::Settle)
            }
        };
        Ok(Self::of(kind, stamp, &draft)?.in_project(project).of_job(job))
    }

    /// A finished job cost less than was charged, as the run that corrected it showed.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn correction(stamp: Stamp, project: &str, job: JobId, run: JobId, micro: u64) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Errata, Account::Project(project.into()), micro);
        Ok(Self::of(Kind::Correction, stamp, &draft)?.in_project(project).of_job(job).noted(&run.to_string()))
    }

    /// What an agent held is its own for good.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn payable(stamp: Stamp, agent: AgentId, micro: u64) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Held(agent), Account::Payable(agent), micro);
        Ok(Self::of(Kind::Payable, stamp, &draft)?.of_agent(agent))
    }

    /// An agent loses what it held.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn forfeit(stamp: Stamp, agent: AgentId, micro: u64, reason: &str) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Held(agent), Account::Forfeited, micro);
        Ok(Self::of(Kind::Forfeit, stamp, &draft)?.of_agent(agent).noted(reason))
    }

    /// A provider was paid; `reference` is the payment's own number.
    ///
    /// # Errors
    /// An amount that does not fit.
    pub fn payout(stamp: Stamp, agent: AgentId, micro: u64, reference: &str) -> Result<Self, BooksError> {
        let mut draft = Draft::default();
        draft.shift(Account::Payable(agent), Account::Paid, micro);
        Ok(Self::of(Kind::Payout, stamp, &draft)?.of_agent(agent).noted(reference))
    }

    /// Whether the postings are of the right form and sum to 0.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), BooksError> {
        let mut before: Option<&Account> = None;
        let mut sum = 0i128;
        for Posting { account, micro } in &self.postings {
            if *micro == 0 || before.is_some_and(|before| before >= account) {
                return Err(BooksError::Form);
            }
            before = Some(account);
            sum += i128::from(*micro);
        }
        if sum == 0 { Ok(()) } else { Err(BooksError::Unbalanced { sum }) }
    }

    /// By how much it changes an account, micro-credits.
    #[must_use]
    pub fn change_of(&self, account: &Account) -> i64 {
        self.postings.iter().find(|posting| posting.account == *account).map_or(0, |posting| posting.micro)
    }

    /// The transaction as canonical JSON.
    #[must_use]
    pub fn canonical(&self) -> String {
        canon::json(self).unwrap_or_default()
    }

    /// Its digest: of its canonical JSON.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Self::digest_of(&self.canonical())
    }

    /// The digest of a transaction's canonical JSON.
    #[must_use]
    pub fn digest_of(canonical: &str) -> Digest {
        Digest::tagged("forgepool v1 transaction", canonical.as_bytes())
    }
}

/// Integers as decimal text: canonical JSON knows doubles only.
mod amount {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value: i64 = text.parse().map_err(D::Error::custom)?;
        // One spelling: another one would have another digest.
        if value.to_string() == text { Ok(value) } else { Err(D::Error::custom("a number has one spelling")) }
    }
}
