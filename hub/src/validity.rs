//! The time in which an X.509 certificate is valid, read from its DER (RFC 5280, section 4.1). Nothing is verified:
//! it is for telling an operator early.

/// From when to when, ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from_ms: u64,
    /// The last.
    pub until_ms: u64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The context-specific tag 0, which a version has.
const VERSION: u8 = 0xa0;

/// The validity of a certificate; `None` where this is none.
#[must_use]
pub fn validity(der: &[u8]) -> Option<Validity> {
    let certificate = expect(SEQUENCE, &mut { der })?;
    let mut signed = expect(SEQUENCE, &mut { certificate })?;
    if signed.first() == Some(&VERSION) {
        take(&mut signed)?;
    }
    // Serial number, algorithm of the signature, issuer.
    for _ in 0..3 {
        take(&mut signed)?;
    }
    let mut times = expect(SEQUENCE, &mut signed)?;
    Some(Validity { from_ms: time(&mut times)?, until_ms: time(&mut times)? })
}

/// The next element: its tag and what it holds.
fn take<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, after) = rest.split_first()?;
    let (first, mut after) = after.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (bytes, behind) = after.split_at_checked(length & 0x7f)?;
        if bytes.len() > 4 {
            return None;
        }
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        after = behind;
    }
    let (held, behind) = after.split_at_checked(length)?;
    *rest = behind;
    Some((*tag, held))
}

fn expect<'a>(tag: u8, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    take(rest).filter(|(found, _)| *found == tag).map(|(_, held)| held)
}

/// `YYMMDDHHMMSSZ` or, from 2050 on, `YYYYMMDDHHMMSSZ`.
fn time(rest: &mut &[u8]) -> Option<u64> {
    let (tag, text) = take(rest)?;
    let text = core::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (number(0)?, number(2)?);
    let (hour, minute, second) = (number(4)?, number(6)?, number(8)?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Before 1970 is as good as 1970.
    let days = days_of(year, month, day).saturating_sub(DAYS_TO_1970);
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000)
}

/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: u64 = 719_468;

/// Days from 1 March of the year 0.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn certificates_say_how_long_they_hold() {
        let of = |from: (i32, u8, u8), until: (i32, u8, u8)| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            validity(params.self_signed(&key).unwrap().der()).unwrap()
        };
        // GNU date -u --date=DAY +%s gives the same.
        let found = of((1999, 12, 31), (2000, 2, 29));
        assert_eq!((found.from_ms, found.until_ms), (946_598_400_000, 951_782_400_000));
        let found = of((2024, 2, 29), (2051, 1, 1));
        assert_eq!((found.from_ms, found.until_ms), (1_709_164_800_000, 2_556_144_000_000));
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        for cut in 0..certificate.der().len() {
            assert_eq!(validity(certificate.der().get(..cut).unwrap()), None);
        }
        for garbage in [&b"\x30\x84\xff\xff\xff\xff"[..], b"\x30\x89\x01", b"\x30", b"nonsense"] {
            assert_eq!(validity(garbage), None);
        }
    }
}
