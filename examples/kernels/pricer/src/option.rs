//! The option: its arguments, and what one normal makes of it.

use forge_sdk_guest::serde;
use libm::{exp, sqrt};

/// The arguments of european.v1; the schema of kernel.toml gives their ranges and units.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde")]
pub struct Arguments {
    /// Call or put.
    pub option: Side,
    /// Whether each normal is used with both signs.
    pub antithetic: bool,
    /// Price of the asset today.
    pub spot: f64,
    /// Strike.
    pub strike: f64,
    /// Risk-free rate, per year.
    pub rate: f64,
    /// Dividend yield, per year.
    #[serde(rename = "yield")]
    pub dividend: f64,
    /// Volatility, per square root of a year.
    pub volatility: f64,
    /// Years to expiry.
    pub expiry: f64,
}

/// What the holder may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde", rename_all = "lowercase")]
pub enum Side {
    /// Buy at the strike.
    Call,
    /// Sell at the strike.
    Put,
}

/// Discounted value and sensitivities of one path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// Payoff.
    pub price: f64,
    /// Its derivative by spot.
    pub delta: f64,
    /// Its second derivative by spot.
    pub gamma: f64,
    /// Its derivative by volatility.
    pub vega: f64,
}

impl Values {
    /// The mean of two.
    #[must_use]
    pub fn mean(&self, other: &Self) -> Self {
        let half = |a: f64, b: f64| 0.5 * (a + b);
        Self {
            price: half(self.price, other.price),
            delta: half(self.delta, other.delta),
            gamma: half(self.gamma, other.gamma),
            vega: half(self.vega, other.vega),
        }
    }
}

/// An option with the constants of its paths.
#[derive(Clone, Debug)]
pub struct Market {
    side: Side,
    spot: f64,
    strike: f64,
    /// `(r - q - sigma^2 / 2) T`.
    drift: f64,
    /// `sigma sqrt(T)`.
    spread: f64,
    root_expiry: f64,
    /// `sigma T`.
    skew: f64,
    discount: f64,
}

impl Market {
    /// The constants of an option.
    #[must_use]
    pub fn new(option: &Arguments) -> Self {
        let root_expiry = sqrt(option.expiry);
        let variance = option.volatility * option.volatility;
        Self {
            side: option.option,
            spot: option.spot,
            strike: option.strike,
            drift: (option.rate - option.dividend - 0.5 * variance) * option.expiry,
            spread: option.volatility * root_expiry,
            root_expiry,
            skew: option.volatility * option.expiry,
            discount: exp(-option.rate * option.expiry),
        }
    }

    /// What one standard normal makes of the option.
    ///
    /// Price, delta and vega pathwise; gamma by the likelihood ratio of the pathwise delta, because a payoff with a kink has
    /// no second derivative along a path.
    ///
    /// **Source**: P. Glasserman, "Monte Carlo Methods in Financial Engineering", 2004, sections 7.2 and 7.3.
    #[must_use]
    pub fn values(&self, z: f64) -> Values {
        let end = self.spot * exp(self.drift + self.spread * z);
        let sign = match self.side {
            Side::Call if end > self.strike => 1.0,
            Side::Put if end < self.strike => -1.0,
            _ => return Values { price: 0.0, delta: 0.0, gamma: 0.0, vega: 0.0 },
        };
        let signed = sign * self.discount;
        Values {
            price: signed * (end - self.strike),
            delta: signed * end / self.spot,
            gamma: signed * self.strike * z / (self.spot * self.spot * self.spread),
            vega: signed * end * (self.root_expiry * z - self.skew),
        }
    }
}
