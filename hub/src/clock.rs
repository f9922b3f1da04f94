//! The hub's two sources of what is not deterministic: time and randomness. Neither reaches a result.

use std::time::{SystemTime, UNIX_EPOCH};

use forge_contract::JobId;

/// Milliseconds since 1970 by the system's clock, never less than an earlier answer of this process.
#[must_use]
pub fn unix_ms() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LATEST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    LATEST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// A time as UTC text with milliseconds (RFC 3339).
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Random bytes from the operating system.
///
/// # Panics
/// Where the operating system has no entropy source; nothing secret could be made then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A new job id.
#[must_use]
pub fn job_id() -> JobId {
    JobId::new(unix_ms(), u128::from_le_bytes(random()))
}

/// A new trace id: 32 hexadecimal digits (W3C Trace Context).
#[must_use]
pub fn trace_id() -> String {
    format!("{:032x}", u128::from_le_bytes(random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_calendars_say() {
        // GNU date -u --date=@N gives the same.
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
