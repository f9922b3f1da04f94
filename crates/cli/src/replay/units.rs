//! Which units: `17`, `17..19`, `3,17..19`.

use std::str::FromStr;

/// Runs of units, first and last of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(Vec<(u64, u64)>);

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let run = |piece: &str| {
            let wrong = || format!("'{piece}' is neither a unit nor a run of units such as 17..19");
            let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
            let (first, last) = match piece.split_once("..") {
                Some((first, last)) => (number(first)?, number(last.strip_prefix('=').unwrap_or(last))?),
                None => (number(piece)?, number(piece)?),
            };
            if last < first {
                return Err(format!("'{piece}' ends before it begins"));
            }
            Ok((first, last))
        };
        text.split(',').map(run).collect::<Result<_, _>>().map(Self)
    }
}

impl Wanted {
    /// The units of a stage of `count` units, rising, each once.
    ///
    /// # Errors
    /// The first unit that the stage does not have.
    pub fn of(&self, count: u64) -> Result<Vec<u64>, u64> {
        let mut units = std::collections::BTreeSet::new();
        for (first, last) in &self.0 {
            if *last >= count {
                return Err((*first).max(count));
            }
            units.extend(*first..=*last);
        }
        Ok(units.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn runs_hold_both_their_ends() {
        let of = |text: &str| text.parse::<Wanted>().unwrap().of(100);
        assert_eq!(of("17..19").unwrap(), [17, 18, 19]);
        assert_eq!(of("17..=19,3, 18").unwrap(), [3, 17, 18, 19]);
        assert_eq!(of("99").unwrap(), [99]);
        assert_eq!(of("98..100").unwrap_err(), 100);
        assert_eq!(of("200..300").unwrap_err(), 200);
        for wrong in ["", "a", "3..", "..3", "5..3", "-1", "1,,2"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }
}
