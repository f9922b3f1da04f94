//! Requests per second, project by project: the generic cell rate algorithm, as `governor` has it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::store::tenancy::Limits;

/// Projects remembered; beyond that all begin anew, with a whole burst each.
const PROJECTS_MAX: usize = 1 << 14;

/// A request came too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    /// Requests per second that are allowed.
    pub rate: u64,
    /// When the next one is; never where none is allowed.
    pub wait: Option<Duration>,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

struct Bucket<C: Clock> {
    rate: u64,
    burst: u64,
    limiter: Limiter<C>,
}

/// How fast each project has asked lately.
pub struct Rates<C: Clock = DefaultClock> {
    clock: C,
    of: Mutex<HashMap<String, Bucket<C>>>,
}

impl<C: Clock> core::fmt::Debug for Rates<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Rates(..)")
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::with(DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    /// Nobody has asked yet.
    #[must_use]
    pub fn with(clock: C) -> Self {
        Self { clock, of: Mutex::default() }
    }

    /// Takes one request of a project.
    ///
    /// # Errors
    /// `TooFast`.
    pub fn take(&self, project: &str, limits: &Limits) -> Result<(), TooFast> {
        let Some(rate) = limits.requests_per_second else { return Ok(()) };
        let burst = limits.requests_burst.unwrap_or(rate);
        let Some(quota) = quota(rate, burst)? else { return Ok(()) };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if of.len() >= PROJECTS_MAX && !of.contains_key(project) {
            of.clear();
        }
        let fresh = || Bucket { rate, burst, limiter: RateLimiter::direct_with_clock(quota, self.clock.clone()) };
        let bucket = of.entry(project.to_owned()).or_insert_with(fresh);
        if (bucket.rate, bucket.burst) != (rate, burst) {
            *bucket = fresh();
        }
        bucket.limiter.check().map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            TooFast { rate, wait: Some(wait) }
        })
    }
}

/// Nothing for a rate so high that it limits nothing.
fn quota(rate: u64, burst: u64) -> Result<Option<Quota>, TooFast> {
    let none = TooFast { rate, wait: None };
    let period = Duration::from_nanos(1_000_000_000u64.checked_div(rate).ok_or(none)?);
    let burst = NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)).ok_or(none)?;
    Ok(Quota::with_period(period).map(|quota| quota.allow_burst(burst)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn limits(rate: u64, burst: Option<u64>) -> Limits {
        Limits { requests_per_second: Some(rate), requests_burst: burst, ..Limits::default() }
    }

    #[test]
    fn a_burst_then_the_rate_and_each_project_for_itself() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::with(clock.clone());
        let allowed = |project: &str, limits: &Limits| (0..10).filter(|_| rates.take(project, limits).is_ok()).count();
        assert_eq!(allowed("a", &limits(2, Some(3))), 3);
        assert_eq!(allowed("b", &limits(2, None)), 2);
        let late = rates.take("a", &limits(2, Some(3)));
        assert_eq!(late, Err(TooFast { rate: 2, wait: Some(Duration::from_millis(500)) }));
        clock.advance(Duration::from_millis(500));
        assert_eq!(allowed("a", &limits(2, Some(3))), 1);
        assert_eq!(allowed("a", &limits(5, None)), 5, "another limit begins anew");
        assert_eq!(allowed("c", &Limits::default()), 10);
        assert_eq!(allowed("d", &limits(u64::MAX, None)), 10);
        for none in [limits(0, None), limits(0, Some(5)), limits(5, Some(0))] {
            assert!(rates.take("e", &none).is_err_and(|fast| fast.wait.is_none()));
        }
    }
}
