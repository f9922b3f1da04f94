//! Numbers for people: grouped thousands, a sensible number of digits.

/// A count with its thousands grouped: `1,000,000`.
#[must_use]
pub fn count(value: u64) -> String {
    group(&value.to_string())
}

/// A measured value: the larger, the fewer decimals.
#[must_use]
pub fn value(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        value.to_string()
    } else if magnitude >= 1e15 || (magnitude > 0.0 && magnitude < 1e-4) {
        format!("{value:.5e}")
    } else if magnitude >= 1e6 {
        group(&format!("{value:.0}"))
    } else if magnitude >= 100.0 || magnitude == 0.0 {
        group(&format!("{value:.2}"))
    } else if magnitude >= 1.0 {
        format!("{value:.4}")
    } else {
        format!("{value:.6}")
    }
}

/// A share as a percentage.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

/// A confidence: `95 %`, `99.9 %`.
#[must_use]
pub fn level(probability: f64) -> String {
    let text = format!("{:.1}", probability * 100.0);
    format!("{} %", text.trim_end_matches(".0"))
}

/// Bytes with a binary unit.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut whole = bytes;
    let mut rest = 0;
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{} {name}", rest * 10 / 1024) }
}

/// An instant in UTC, `2026-11-20 19:32:04`.
///
/// **Units**: milliseconds since 1970. Source of the calendar: Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`.
#[must_use]
pub fn instant(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    // Days counted from 0000-03-01, so that a leap day ends its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn group(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let mut grouped = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_203_124, "2026-11-20 19:32:04"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(instant(seconds * 1000), text);
        }
    }

    #[test]
    fn numbers_read_well() {
        for (number, text) in [
            (0.0, "0.00"),
            (1853.5333, "1,853.53"),
            (-1853.5333, "-1,853.53"),
            (250_000.0, "250,000.00"),
            (22_925_870.194, "22,925,870"),
            (0.132_628_578, "0.132629"),
            (8.34, "8.3400"),
            (1e-13, "1.00000e-13"),
        ] {
            assert_eq!(value(number), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_000_000, "1,000,000")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (16 << 20, "16.0 MiB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
