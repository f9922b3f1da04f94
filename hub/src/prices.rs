//! The price list: a TOML file of the operator's.
//!
//! ```toml
//! credits_per_gfuel = "0.5"       # credits for 1e9 fuel; one third where absent
//! eur_per_credit = "0.12"
//! verification_share_ppm = 0      # the client's part of what checking costs
//! hold_ppm = 1250000              # held at first, of what is expected
//!
//! [kernels]
//! "gemm@1" = "0.2"                # credits for 1e9 fuel of this kernel
//! ```
//!
//! A job is billed as the list stood when it was accepted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forge_lifecycle::books::price::PriceList;
use forge_lifecycle::ledger::{MICRO_MAX, Rates, Tariff};
use serde::Deserialize;

/// Why a price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such TOML.
    #[error("the price list: {0}")]
    Form(#[from] toml::de::Error),
    /// An amount is no amount.
    #[error("the price list: {field} is '{found}'; an amount is a text like \"0.25\", with at most six decimals")]
    Amount {
        /// Where.
        field: String,
        /// What stands there.
        found: String,
    },
    /// A share is out of range.
    #[error("the price list: {field} is {found}; expected {expected}")]
    Share {
        /// Where.
        field: &'static str,
        /// What stands there.
        found: u32,
        /// The rule.
        expected: &'static str,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    credits_per_gfuel: Option<String>,
    eur_per_credit: Option<String>,
    verification_share_ppm: Option<u32>,
    hold_ppm: Option<u32>,
    #[serde(default)]
    kernels: BTreeMap<String, String>,
}

/// Reads a price list.
///
/// # Errors
/// `Io`, `Form`, `Amount`, `Share`.
pub fn read(path: &Path) -> Result<PriceList, PricesError> {
    let text = std::fs::read_to_string(path).map_err(|source| PricesError::Io { path: path.to_owned(), source })?;
    parse(&text)
}

fn parse(text: &str) -> Result<PriceList, PricesError> {
    let file: File = toml::from_str(text)?;
    let usual = Tariff::default();
    let mut rates = usual.rates;
    if let Some(price) = &file.credits_per_gfuel {
        rates = Rates { price_micro: micro("credits_per_gfuel", price)?, per_fuel: 1_000_000_000, ..rates };
    }
    if let Some(eur) = &file.eur_per_credit {
        rates.eur_micro_per_credit = micro("eur_per_credit", eur)?;
    }
    let verification_ppm = file.verification_share_ppm.unwrap_or(usual.verification_ppm);
    if verification_ppm > 1_000_000 {
        let (field, expected) = ("verification_share_ppm", "0 to 1000000");
        return Err(PricesError::Share { field, found: verification_ppm, expected });
    }
    let hold_ppm = file.hold_ppm.unwrap_or(usual.hold_ppm);
    if hold_ppm < 1_000_000 {
        let (field, expected) = ("hold_ppm", "at least 1000000: what is expected is held whole");
        return Err(PricesError::Share { field, found: hold_ppm, expected });
    }
    let mut list = PriceList { usual: Tariff { rates, verification_ppm, hold_ppm, ..usual }, ..PriceList::default() };
    for (kernel, price) in &file.kernels {
        list.kernels.insert(kernel.clone(), micro(&format!("kernels.\"{kernel}\""), price)?);
    }
    Ok(list)
}

/// Millionths of a decimal number, exactly.
fn micro(field: &str, text: &str) -> Result<u64, PricesError> {
    let amount = || {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 6 || !digits(whole) || !digits(decimals) || text.ends_with('.') {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let decimals: u64 = format!("{decimals:0<6}").parse().ok()?;
        whole.checked_mul(1_000_000)?.checked_add(decimals).filter(|micro| *micro <= MICRO_MAX)
    };
    amount().ok_or_else(|| PricesError::Amount { field: field.into(), found: text.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_is_read_exactly() {
        assert_eq!(parse("").unwrap(), PriceList::default());
        let text = "credits_per_gfuel = \"0.5\"\neur_per_credit = \"0.123456\"\nverification_share_ppm = 1000000\n\
                    [kernels]\n\"gemm@1\" = \"2\"\n\"a/b@3\" = \"0\"\n";
        let list = parse(text).unwrap();
        let usual = list.tariff("mc@1");
        assert_eq!((usual.rates.price_micro, usual.rates.per_fuel), (500_000, 1_000_000_000));
        assert_eq!((usual.rates.eur_micro_per_credit, usual.verification_ppm), (123_456, 1_000_000));
        assert_eq!(list.tariff("gemm@1").rates.price_micro, 2_000_000);
        assert_eq!(list.tariff("a/b@3").rates.price_micro, 0);
        assert_eq!(list.tariff("gemm@1").rates.eur_micro_per_credit, 123_456);
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_field() {
        for bad in ["-1", "1.", ".5", "1e3", "0.1234567", "99999999999", "", "1,5"] {
            let refused = parse(&format!("eur_per_credit = \"{bad}\"")).unwrap_err().to_string();
            assert!(refused.contains("eur_per_credit"), "{refused}");
        }
        assert!(parse("hold_ppm = 999999").unwrap_err().to_string().contains("hold_ppm is 999999"));
        assert!(parse("verification_share_ppm = 1000001").is_err());
        assert!(parse("price = 1").is_err());
    }
}
