//! A limit that a request would break, as its sender sees it.

use std::time::Duration;

use forge_contract::FailureCode;

use super::problem::Problem;
use crate::store::Exceeded;
use crate::store::tenancy::LimitName;

impl From<Exceeded> for Problem {
    fn from(Exceeded { name, value, asked }: Exceeded) -> Self {
        let detail = match name {
            LimitName::ConcurrentJobs => {
                format!(
                    "this project may have {value} jobs at one time, this would be one of {asked}; try again when one has ended"
                )
            }
            LimitName::IterationsPerJob => {
                format!("args: the job has {asked} iterations, one of this project's may have {value}; ask for fewer")
            }
            LimitName::FuelPerJob => {
                format!(
                    "args: the job is quoted at {asked} fuel, one of this project's may burn {value}; ask for less work"
                )
            }
            LimitName::StorageBytes => {
                format!("with this the project would store {asked} bytes, it may store {value}; remove something first")
            }
            LimitName::VerifyMin => {
                format!("policy.verify: expected \"{value}\" or a stricter one in this project, found \"{asked}\"")
            }
            LimitName::RequestsPerSecond | LimitName::RequestsBurst => {
                format!("this project may send {value} requests per second, this would be one of {asked}")
            }
        };
        let pointer = match name {
            LimitName::VerifyMin => Some("/policy/verify"),
            LimitName::IterationsPerJob | LimitName::FuelPerJob => Some("/args"),
            _ => None,
        };
        let problem = Self::of(FailureCode::RequestQuota, format!("{detail} ({})", name.as_str()));
        let problem = problem.limited((name, value, asked), None);
        let problem = match pointer {
            Some(pointer) => problem.at(pointer),
            None => problem,
        };
        if name == LimitName::ConcurrentJobs { problem.retry_after(Duration::from_secs(1)) } else { problem }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::tenancy::Amount;
    use http::{StatusCode, header};

    #[test]
    fn what_time_mends_says_when_and_every_refusal_names_its_limit() {
        for (name, status, retry) in [
            (LimitName::ConcurrentJobs, StatusCode::TOO_MANY_REQUESTS, Some("1")),
            (LimitName::IterationsPerJob, StatusCode::UNPROCESSABLE_ENTITY, None),
            (LimitName::FuelPerJob, StatusCode::UNPROCESSABLE_ENTITY, None),
            (LimitName::StorageBytes, StatusCode::UNPROCESSABLE_ENTITY, None),
        ] {
            let problem = Problem::from(Exceeded { name, value: Amount::Number(7), asked: Amount::Number(9) });
            let response = problem.render("t");
            assert_eq!(response.status(), status, "{name:?}");
            let given = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(given, retry, "{name:?}");
            let body = problem.body("t");
            let limit = body.limit.unwrap();
            assert_eq!((limit.name, limit.value, limit.asked), (name, Amount::Number(7), Amount::Number(9)));
            assert!(body.detail.contains(name.as_str()) && body.detail.contains('7') && body.detail.contains('9'));
        }
    }
}
