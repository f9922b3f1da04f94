//! insurance.v1 in closed form: moments of one policy year before the aggregate limit.
//!
//! Source: S. A. Klugman, H. H. Panjer, G. E. Willmot, Loss Models: limited expected values of the lognormal
//! (appendix A), cumulants of a compound Poisson sum (chapter 9).

use crate::normal;

/// A lognormal amount capped at a limit: `min(exp(mu + sigma Z), cap)`.
#[derive(Clone, Copy, Debug)]
pub struct Severity {
    pub mu: f64,
    pub sigma: f64,
    pub cap: f64,
}

impl Severity {
    /// `E[min(amount, limit)^power]`.
    pub fn limited(&self, power: f64, limit: f64) -> f64 {
        let limit = limit.min(self.cap);
        if limit <= 0.0 {
            return 0.0;
        }
        if self.sigma == 0.0 {
            return self.mu.exp().min(limit).powf(power);
        }
        let shift = power * self.sigma * self.sigma;
        let z = (limit.ln() - self.mu) / self.sigma;
        let inside = (power * self.mu + power * shift / 2.0).exp() * normal::below(z - shift / self.sigma);
        // With no limit in effect the second term is 0 times infinity.
        let beyond = normal::above(z);
        if beyond == 0.0 { inside } else { inside + limit.powf(power) * beyond }
    }

    /// `E[amount^power]`.
    pub fn raw(&self, power: f64) -> f64 {
        self.limited(power, self.cap)
    }
}

/// The arguments of insurance.v1.
#[derive(Clone, Copy, Debug)]
pub struct Insurance {
    pub claim_freq: f64,
    pub claim: Severity,
    pub cat_prob: f64,
    pub cat: Severity,
    pub aggregate_limit: f64,
}

/// Mean and the second, third and fourth cumulant.
pub type Cumulants = [f64; 4];

impl Insurance {
    /// The quickstart's contract.
    pub fn quickstart() -> Self {
        let cap = 50_000.0;
        Self {
            claim_freq: 2.0,
            claim: Severity { mu: 6.0, sigma: 1.0, cap },
            cat_prob: 0.02,
            cat: Severity { mu: 10.0, sigma: 1.5, cap },
            aggregate_limit: 250_000.0,
        }
    }

    /// The same with another policy limit, which caps claims and catastrophes alike.
    pub fn policy_limit(mut self, cap: f64) -> Self {
        (self.claim.cap, self.cat.cap) = (cap, cap);
        self
    }

    /// Probability of a year without any loss.
    pub fn p_zero(&self) -> f64 {
        (-self.claim_freq).exp() * (1.0 - self.cat_prob)
    }

    /// Cumulants of a year's loss as if there were no aggregate limit.
    pub fn cumulants(&self) -> Cumulants {
        let [m1, m2, m3, m4] = [1.0, 2.0, 3.0, 4.0].map(|k| self.cat_prob * self.cat.raw(k));
        let cat = [
            m1,
            m2 - m1 * m1,
            m3 - 3.0 * m2 * m1 + 2.0 * m1.powi(3),
            m4 - 4.0 * m3 * m1 - 3.0 * m2 * m2 + 12.0 * m2 * m1 * m1 - 6.0 * m1.powi(4),
        ];
        let claims = [1.0, 2.0, 3.0, 4.0].map(|k| self.claim_freq * self.claim.raw(k));
        std::array::from_fn(|k| claims[k] + cat[k])
    }

    /// Skewness and kurtosis (3 for a normal) as if there were no aggregate limit.
    pub fn shape(&self) -> (f64, f64) {
        let [_, variance, third, fourth] = self.cumulants();
        (third / variance.powf(1.5), fourth / (variance * variance) + 3.0)
    }
}

#[test]
fn limited_expected_values_agree_with_numerical_integration() {
    // E[min(X, u)^k] = integral of k x^(k-1) P(X > x) over 0..u, by the midpoint rule in ln x.
    for severity in [Insurance::quickstart().claim, Insurance::quickstart().cat] {
        for (power, limit) in [(1.0, 300.0), (1.0, 50_000.0), (2.0, 20_000.0), (3.0, 50_000.0)] {
            let (from, to, steps) = (-15.0, f64::ln(limit), 20_000);
            let width = (to - from) / f64::from(steps);
            let sum: f64 = (0..steps)
                .map(|i| {
                    let log = from + (f64::from(i) + 0.5) * width;
                    power * (power * log).exp() * normal::above((log - severity.mu) / severity.sigma) * width
                })
                .sum();
            let found = severity.limited(power, limit);
            assert!((found / sum - 1.0).abs() < 1e-6, "{severity:?} {power} {limit}: {found} and {sum}");
        }
    }
}

#[test]
fn a_limit_out_of_reach_gives_the_moments_of_the_lognormal() {
    let severity = Severity { mu: 1.0, sigma: 0.5, cap: f64::INFINITY };
    for power in [1.0, 2.0, 4.0] {
        let expected = f64::exp(power + power * power * 0.125);
        assert!((severity.raw(power) / expected - 1.0).abs() < 1e-14);
        let far = Severity { cap: 1e12, ..severity };
        assert!((far.raw(power) / expected - 1.0).abs() < 1e-14);
    }
}
