//! Whose money it is: the accounts of the books and what each may hold.

use core::fmt;
use core::str::FromStr;

use forge_contract::{AgentId, JobId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An account. Its balance is the sum of its postings; the balances of all accounts sum to 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// What clients paid in, negative: the other side of what was granted to projects.
    Issued,
    /// What left for providers: the other side of payouts.
    Paid,
    /// A client's. Negative where it owes.
    Project(String),
    /// What is set aside for a job that runs.
    Hold(JobId),
    /// What an agent earned and can still lose.
    Held(AgentId),
    /// What an agent earned for good and was not paid yet.
    Payable(AgentId),
    /// The platform's part of what clients pay for work.
    Revenue,
    /// What checking brings and costs the platform: negative while it bears it.
    Verification,
    /// What jobs burned beyond what was held for them, negative.
    Overrun,
    /// What running doubtful shards again costs, negative, refunds of corrected jobs included.
    Errata,
    /// What refuted agents lost.
    Forfeited,
    /// What was there before these books, negative or not.
    Opening,
}

impl Account {
    /// Whether its balance must never be below 0.
    #[must_use]
    pub const fn is_floored(&self) -> bool {
        matches!(self, Self::Hold(_) | Self::Held(_) | Self::Payable(_) | Self::Paid | Self::Forfeited)
    }
}

/// A text that names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' names no account")]
pub struct AccountError {
    /// The text.
    pub text: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued => f.write_str("issued"),
            Self::Paid => f.write_str("paid"),
            Self::Project(project) => write!(f, "project:{project}"),
            Self::Hold(job) => write!(f, "hold:{job}"),
            Self::Held(agent) => write!(f, "held:{agent}"),
            Self::Payable(agent) => write!(f, "payable:{agent}"),
            Self::Revenue => f.write_str("platform:revenue"),
            Self::Verification => f.write_str("platform:verification"),
            Self::Overrun => f.write_str("platform:overrun"),
            Self::Errata => f.write_str("platform:errata"),
            Self::Forfeited => f.write_str("platform:forfeited"),
            Self::Opening => f.write_str("platform:opening"),
        }
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError { text: text.into() };
        let Some((kind, name)) = text.split_once(':') else {
            return match text {
                "issued" => Ok(Self::Issued),
                "paid" => Ok(Self::Paid),
                _ => Err(unknown()),
            };
        };
        Ok(match (kind, name) {
            ("project", project) if !project.is_empty() => Self::Project(project.into()),
            ("hold", job) => Self::Hold(job.parse().map_err(|_| unknown())?),
            ("held", agent) => Self::Held(agent.parse().map_err(|_| unknown())?),
            ("payable", agent) => Self::Payable(agent.parse().map_err(|_| unknown())?),
            ("platform", "revenue") => Self::Revenue,
            ("platform", "verification") => Self::Verification,
            ("platform", "overrun") => Self::Overrun,
            ("platform", "errata") => Self::Errata,
            ("platform", "forfeited") => Self::Forfeited,
            ("platform", "opening") => Self::Opening,
            _ => return Err(unknown()),
        })
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::Digest;

    #[test]
    fn accounts_have_one_name_each() {
        let (job, agent) = (JobId::new(1, 2), AgentId(Digest::of(b"a")));
        let all = [
            Account::Issued,
            Account::Paid,
            Account::Project("a:b".into()),
            Account::Hold(job),
            Account::Held(agent),
            Account::Payable(agent),
            Account::Revenue,
            Account::Verification,
            Account::Overrun,
            Account::Errata,
            Account::Forfeited,
            Account::Opening,
        ];
        for account in all {
            assert_eq!(account.to_string().parse::<Account>().unwrap(), account);
        }
        for bad in ["", "project:", "hold:x", "held:", "platform:other", "issued:1x", "paid:"] {
            assert!(bad.parse::<Account>().is_err(), "{bad}");
        }
    }
}
