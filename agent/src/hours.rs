//! The hours of the day in which an agent works.

use core::fmt;
use core::str::FromStr;

const DAY_MINUTES: u32 = 24 * 60;
/// Most windows of one agent.
const WINDOWS_MAX: usize = 16;

/// Why a text is no window of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hours are written HH:MM-HH:MM in UTC, or with the distance from it as in 22:00-06:30+01:00")]
pub struct HoursError;

/// From one minute of the day up to another, over midnight where the second is earlier. Equal ones are the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: u32,
    to: u32,
    /// Minutes that the clock meant is ahead of UTC.
    ahead: i32,
}

/// When an agent works; without windows, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours(Vec<Window>);

impl Hours {
    /// The hours of these windows.
    ///
    /// # Errors
    /// A text that is none, or too many.
    pub fn parse(texts: &[String]) -> Result<Self, HoursError> {
        if texts.len() > WINDOWS_MAX {
            return Err(HoursError);
        }
        texts.iter().map(|text| text.trim().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the agent works at this second since 1970.
    #[must_use]
    pub fn contain(&self, unix_seconds: u64) -> bool {
        let minute = u32::try_from(unix_seconds / 60 % u64::from(DAY_MINUTES)).unwrap_or(0);
        self.0.is_empty() || self.0.iter().any(|window| window.contains(minute))
    }

    /// As they were written, in one form.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl Window {
    /// Whether a minute of UTC's day is in it.
    fn contains(&self, utc_minute: u32) -> bool {
        let day = i64::from(DAY_MINUTES);
        let minute = u32::try_from((i64::from(utc_minute) + i64::from(self.ahead)).rem_euclid(day)).unwrap_or(0);
        match self.from.cmp(&self.to) {
            core::cmp::Ordering::Less => (self.from..self.to).contains(&minute),
            core::cmp::Ordering::Greater => minute >= self.from || minute < self.to,
            core::cmp::Ordering::Equal => true,
        }
    }
}

impl FromStr for Window {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let (from, rest) = text.split_once('-').ok_or(HoursError)?;
        let at = rest.find(['+', '-', 'Z']).unwrap_or(rest.len());
        let (to, zone) = rest.split_at_checked(at).ok_or(HoursError)?;
        let ahead = match zone.split_at_checked(1) {
            None | Some(("Z", "")) => 0,
            Some(("+", distance)) => signed(clock(distance)?)?,
            Some(("-", distance)) => -signed(clock(distance)?)?,
            Some(_) => return Err(HoursError),
        };
        Ok(Self { from: clock(from)?, to: clock(to)?, ahead })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let to = if self.to == 0 { DAY_MINUTES } else { self.to };
        write!(f, "{}-{}", clock(self.from), clock(to))?;
        match self.ahead {
            0 => Ok(()),
            ahead => write!(f, "{}{}", if ahead < 0 { '-' } else { '+' }, clock(ahead.unsigned_abs())),
        }
    }
}

fn signed(minutes: u32) -> Result<i32, HoursError> {
    i32::try_from(minutes).map_err(|_| HoursError)
}

/// `HH:MM` as a minute of the day.
fn clock(text: &str) -> Result<u32, HoursError> {
    let (hours, minutes) = text.split_once(':').ok_or(HoursError)?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return Err(HoursError);
    }
    let number = |text: &str| text.parse::<u32>().map_err(|_| HoursError);
    match (number(hours)?, number(minutes)?) {
        (24, 0) => Ok(0),
        (hours @ 0..24, minutes @ 0..60) => Ok(hours * 60 + minutes),
        _ => Err(HoursError),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hours(texts: &[&str]) -> Hours {
        Hours::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn works(hours: &Hours, hour: u64, minute: u64) -> bool {
        // Some day, at that time of it.
        hours.contain(1_795_132_800 + hour * 3600 + minute * 60 + 59)
    }

    #[test]
    fn windows_reach_over_midnight_and_end_before_their_end() {
        let night = hours(&["22:00-06:30"]);
        for (hour, minute, at_work) in
            [(22, 0, true), (23, 59, true), (0, 0, true), (6, 29, true), (6, 30, false), (21, 59, false)]
        {
            assert_eq!(works(&night, hour, minute), at_work, "{hour}:{minute}");
        }
        let both = hours(&["08:00-09:00", "12:00-24:00"]);
        for (hour, at_work) in [(7, false), (8, true), (9, false), (12, true), (23, true), (0, false)] {
            assert_eq!(works(&both, hour, 0), at_work, "{hour}");
        }
        assert!(works(&Hours::default(), 3, 0));
        assert!(works(&hours(&["05:00-05:00"]), 3, 0));
    }

    #[test]
    fn a_clock_ahead_of_utc_is_earlier_in_utc() {
        let east = hours(&["00:00-01:00+02:00"]);
        assert!(works(&east, 22, 30) && !works(&east, 0, 30));
        let west = hours(&["22:00-23:00-05:30"]);
        assert!(works(&west, 4, 0) && !works(&west, 22, 30));
    }

    #[test]
    fn one_form_and_no_other() {
        for text in ["22:00-06:30", "22:00-06:30+01:00", "00:00-24:00-05:30", "22:00-06:30Z"] {
            let parsed = hours(&[text]);
            assert_eq!(hours(&parsed.texts().iter().map(String::as_str).collect::<Vec<_>>()), parsed, "{text}");
        }
        for text in
            ["", "22-6", "22:00", "22:00-25:00", "22:60-23:00", "2:00-3:00", "22:00-06:30+", "22:00-06:30+1", "x"]
        {
            assert_eq!(text.parse::<Window>(), Err(HoursError), "{text}");
        }
    }
}
