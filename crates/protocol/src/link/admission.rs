//! How often one address may connect: a bucket of allowances that refills with time.
//!
//! Only addresses that answered a retry are counted, so nobody fills another's bucket. The table is bounded; when it
//! is full, the entries that have refilled longest make room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most addresses remembered.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug)]
struct Bucket {
    /// Connections this address may still open, as of `at`.
    left: f64,
    at: Instant,
}

/// The buckets of all addresses.
#[derive(Debug)]
pub(crate) struct Admission {
    burst: f64,
    per_second: f64,
    buckets: HashMap<IpAddr, Bucket>,
}

impl Admission {
    pub(crate) fn new(burst: u32, refill: Duration) -> Self {
        let burst = f64::from(burst.max(1));
        Self { burst, per_second: burst / refill.as_secs_f64().max(1e-3), buckets: HashMap::new() }
    }

    /// Takes one allowance of `address`; false where none is left.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&address) {
            self.forget(now);
        }
        let (burst, per_second) = (self.burst, self.per_second);
        let bucket = self.buckets.entry(address).or_insert(Bucket { left: burst, at: now });
        let waited = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + waited * per_second).min(burst);
        bucket.at = now;
        let granted = bucket.left >= 1.0;
        if granted {
            bucket.left -= 1.0;
        }
        granted
    }

    /// Forgets the full buckets, and where none is full, all but the emptiest half.
    fn forget(&mut self, now: Instant) {
        let (burst, per_second) = (self.burst, self.per_second);
        let level = |bucket: &Bucket| bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * per_second;
        self.buckets.retain(|_, bucket| level(bucket) < burst);
        if self.buckets.len() >= ADDRESSES_MAX {
            let mut levels: Vec<f64> = self.buckets.values().map(level).collect();
            levels.sort_by(f64::total_cmp);
            let median = levels.get(levels.len() / 2).copied().unwrap_or(burst);
            self.buckets.retain(|_, bucket| level(bucket) < median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn an_allowance_is_used_up_and_comes_back_for_its_address_alone() {
        let start = Instant::now();
        let mut admission = Admission::new(2, Duration::from_secs(2));
        assert!(admission.take(address(1), start));
        assert!(admission.take(address(1), start));
        assert!(!admission.take(address(1), start));
        assert!(admission.take(address(2), start));
        assert!(admission.take(address(1), start + Duration::from_secs(1)));
        assert!(!admission.take(address(1), start + Duration::from_secs(1)));
    }

    #[test]
    fn the_table_stays_bounded() {
        let start = Instant::now();
        let mut admission = Admission::new(4, Duration::from_secs(1000));
        for number in 0..20_000 {
            admission.take(address(number), start);
            assert!(admission.buckets.len() <= ADDRESSES_MAX);
        }
    }
}
