//! What a project may use, and what an operator lets an organisation allow.

use forge_contract::envelope::VerifyMode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest value of a limit: what JSON carries exactly.
pub const LIMIT_MAX: u64 = (1 << 53) - 1;

/// A limit by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// Requests per second.
    RequestsPerSecond,
    /// Requests at once above that.
    RequestsBurst,
    /// Jobs without an end at one time.
    ConcurrentJobs,
    /// Iterations (items of work) of one job.
    IterationsPerJob,
    /// Fuel of one job.
    FuelPerJob,
    /// Bytes stored.
    StorageBytes,
    /// The least `policy.verify`.
    VerifyMin,
}

impl LimitName {
    /// The stored and shown text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests_per_second",
            Self::RequestsBurst => "requests_burst",
            Self::ConcurrentJobs => "concurrent_jobs",
            Self::IterationsPerJob => "iterations_per_job",
            Self::FuelPerJob => "fuel_per_job",
            Self::StorageBytes => "storage_bytes",
            Self::VerifyMin => "verify_min",
        }
    }
}

/// What a project may use; nothing for what is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests per second, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// Requests at once; where absent as many as per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_burst: Option<u64>,
    /// Jobs without an end at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_jobs: Option<u64>,
    /// Iterations (items of work) of one job, as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations_per_job: Option<u64>,
    /// Fuel of one job: as quoted before it begins, and as accepted while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_per_job: Option<u64>,
    /// Bytes stored: content, kernels, values and arrays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// The least `policy.verify`: `none`, `spotcheck`, `quorum` or `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub verify_min: Option<VerifyMode>,
}

impl Limits {
    /// Its numbers by name.
    #[must_use]
    pub const fn numbers(&self) -> [(LimitName, Option<u64>); 6] {
        [
            (LimitName::RequestsPerSecond, self.requests_per_second),
            (LimitName::RequestsBurst, self.requests_burst),
            (LimitName::ConcurrentJobs, self.concurrent_jobs),
            (LimitName::IterationsPerJob, self.iterations_per_job),
            (LimitName::FuelPerJob, self.fuel_per_job),
            (LimitName::StorageBytes, self.storage_bytes),
        ]
    }

    /// The stricter of both, limit by limit.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        let least = |one: Option<u64>, two: Option<u64>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self {
            requests_per_second: least(self.requests_per_second, other.requests_per_second),
            requests_burst: least(self.requests_burst, other.requests_burst),
            concurrent_jobs: least(self.concurrent_jobs, other.concurrent_jobs),
            iterations_per_job: least(self.iterations_per_job, other.iterations_per_job),
            fuel_per_job: least(self.fuel_per_job, other.fuel_per_job),
            storage_bytes: least(self.storage_bytes, other.storage_bytes),
            verify_min: self.verify_min.max(other.verify_min),
        }
    }

    /// The first limit that is looser than the ceiling allows.
    #[must_use]
    pub fn above(&self, ceilings: &Self) -> Option<LimitName> {
        let pairs = self.numbers().into_iter().zip(ceilings.numbers());
        let above = |one: Option<u64>, ceiling: Option<u64>| one.zip(ceiling).is_some_and(|(one, most)| one > most);
        let number = pairs.into_iter().find(|((_, one), (_, most))| above(*one, *most)).map(|((name, _), _)| name);
        let loose = self.verify_min.zip(ceilings.verify_min).is_some_and(|(one, least)| one < least);
        number.or(loose.then_some(LimitName::VerifyMin))
    }
}

/// What a limit is, or what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
    Number(u64),
    /// Such a `policy.verify`.
    #[schema(value_type = String)]
    Mode(VerifyMode),
}

impl core::fmt::Display for Amount {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Mode(mode) => mode.fmt(f),
        }
    }
}

/// A limit that a request would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub name: LimitName,
    /// What it is.
    pub value: Amount,
    /// What was asked for, with what is in use already where that counts too.
    pub asked: Amount,
}

impl Exceeded {
    /// The limit `value`, where `asked` is more.
    #[must_use]
    pub fn by(name: LimitName, value: Option<u64>, asked: u64) -> Option<Self> {
        let value = value.filter(|value| asked > *value)?;
        Some(Self { name, value: Amount::Number(value), asked: Amount::Number(asked) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = Limits> {
        let number = || prop::option::of(0u64..4);
        let mode = prop::option::of(prop::sample::select(VerifyMode::ALL));
        let numbers = (number(), number(), number(), number(), number(), number());
        (numbers, mode).prop_map(|((a, b, c, d, e, f), verify_min)| Limits {
            requests_per_second: a,
            requests_burst: b,
            concurrent_jobs: c,
            iterations_per_job: d,
            fuel_per_job: e,
            storage_bytes: f,
            verify_min,
        })
    }

    proptest! {
        #[test]
        fn the_stricter_of_two_is_above_neither(one in limits(), two in limits()) {
            let both = one.within(&two);
            prop_assert_eq!(both, two.within(&one));
            prop_assert_eq!((both.above(&one), both.above(&two)), (None, None));
            prop_assert_eq!(one.within(&one), one);
            prop_assert_eq!(one.within(&Limits::default()), one);
            // Who stays below its ceiling loses nothing by it but what it left open.
            if one.above(&two).is_none() {
                for ((_, own), (_, effective)) in one.numbers().into_iter().zip(both.numbers()) {
                    prop_assert!(own.is_none() || own == effective);
                }
            }
        }

        #[test]
        fn limits_read_back(one in limits()) {
            let text = serde_json::to_string(&one).unwrap();
            prop_assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), one);
        }
    }
}
