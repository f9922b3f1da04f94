//! The distribution of one policy year's loss on a grid, by convolution.
//!
//! Severities are discretised so that their mean is kept (local moment matching of order one); the sum's transform is
//! `exp(freq (claim - 1)) (1 - p + p cat)`, taken of exponentially tilted masses so that what lies past the grid does not
//! wrap round; the aggregate limit gathers all mass above it.
//!
//! Source: H. U. Gerber, On the numerical evaluation of the distribution of aggregate claims, 1982; Klugman, Panjer,
//! Willmot, Loss Models, sections 9.6 and 9.7; P. Embrechts, M. Frei, Panjer recursion versus FFT, 2009.

use crate::fourier::{self, Complex};
use crate::model::{Insurance, Severity};

/// Exponent of the tilt over the whole grid: more would raise the rounding error at the far end, less the wrapping.
const TILT: f64 = 14.0;
/// A grid that misses less than this holds the whole distribution.
const MISSED: f64 = 1e-9;

/// Probabilities of the losses `0, step, 2 step, ...`.
pub struct Aggregate {
    /// Distance of grid points. A bound or a quantile is known within it.
    pub step: f64,
    /// `mass[k]` is the probability of `k * step`.
    mass: Vec<f64>,
    /// `sums[k]` is the probability of a loss below `k * step`.
    sums: Vec<f64>,
    /// Where the year's loss is capped, and the probability of that; else the end of the grid and what lies past it.
    end: f64,
    beyond: f64,
    /// Whether the mass beyond sits at `end` exactly.
    pub closed: bool,
}

impl Aggregate {
    /// The distribution on `2^bits` points of distance `step`.
    ///
    /// Losses past the grid wrap round to its start; tilting leaves `exp(-TILT)` of them there.
    pub fn new(model: &Insurance, bits: u32, step: f64) -> Self {
        let n = 1usize << bits;
        let tilt = |k: usize| (TILT * k as f64 / n as f64).exp();
        let tilted = |severity: &Severity| -> Vec<f64> {
            discretised(severity, n, step).into_iter().enumerate().map(|(k, p)| p / tilt(k)).collect()
        };
        let (claims, cats) = (tilted(&model.claim), tilted(&model.cat));
        // Two real sequences in one transform: the even and odd parts are taken apart below.
        let mut values: Vec<Complex> = claims.into_iter().zip(cats).map(|(re, im)| Complex::new(re, im)).collect();
        fourier::forward(&mut values);
        let transform = |at: usize| {
            let (here, there) = (values[at], values[(n - at) % n].conjugate());
            let claim = here.add(there).scale(0.5);
            let cat = here.sub(there).mul(Complex::new(0.0, -0.5));
            let count = claim.sub(Complex::new(1.0, 0.0)).scale(model.claim_freq).exp();
            count.mul(cat.scale(model.cat_prob).add(Complex::new(1.0 - model.cat_prob, 0.0)))
        };
        let mut sum: Vec<Complex> = (0..n).map(transform).collect();
        fourier::inverse(&mut sum);
        let mass = sum.into_iter().enumerate().map(|(k, c)| c.re * tilt(k)).collect();
        Self::of(mass, step, model.aggregate_limit)
    }

    fn of(mut mass: Vec<f64>, step: f64, limit: f64) -> Self {
        let closed = limit <= step * (mass.len() - 1) as f64;
        if closed {
            mass.truncate((limit / step).ceil() as usize);
        }
        let end = if closed { limit } else { step * mass.len() as f64 };
        let mut sums = Vec::with_capacity(mass.len() + 1);
        let mut sum = 0.0;
        for p in &mass {
            sums.push(sum);
            sum += p;
        }
        sums.push(sum);
        Self { step, mass, sums, end, beyond: (1.0 - sum).max(0.0), closed }
    }

    /// Probability of a loss below `x`, where the loss at `x` itself may fall on either side: least and greatest value.
    pub fn below(&self, x: f64) -> (f64, f64) {
        (self.sum_below(x - self.step), self.sum_below(x + 2.0 * self.step))
    }

    /// Probability of grid points below `x`.
    fn sum_below(&self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        if x > self.end && self.closed {
            return 1.0;
        }
        self.sums[((x / self.step).ceil() as usize).min(self.mass.len())]
    }

    /// Smallest loss reached with probability `p`, straight between grid points.
    pub fn quantile(&self, p: f64) -> f64 {
        // The mass of a grid point stands for losses half a step to either side.
        let middle = |k: usize| self.sums[k] + 0.5 * self.mass[k];
        let total = self.sums[self.mass.len()];
        if p > total {
            return self.end;
        }
        let reached = self.sums.partition_point(|sum| *sum < p);
        let (mut right, mut left) = (reached.min(self.mass.len() - 1), reached.saturating_sub(1));
        if right == 0 || middle(left) > p && left == 0 {
            return 0.0;
        }
        if middle(left) > p {
            (left, right) = (left - 1, left);
        }
        let rise = middle(right) - middle(left);
        let part = if rise > 0.0 { ((p - middle(left)) / rise).clamp(0.0, 1.0) } else { 0.0 };
        self.step * (left as f64 + part)
    }

    /// Expected value of `f(loss)`; without a closed end, of the losses on the grid alone.
    pub fn expect(&self, f: impl Fn(f64) -> f64) -> f64 {
        let grid: f64 = self.mass.iter().enumerate().map(|(k, p)| p * f(k as f64 * self.step)).sum();
        if self.closed && self.beyond > 0.0 { grid + self.beyond * f(self.end) } else { grid }
    }

    /// The aggregate limit where it is on the grid, else the grid's end.
    pub fn end(&self) -> f64 {
        self.end
    }

    /// Whether the grid holds the whole distribution.
    pub fn covers(&self) -> bool {
        self.closed || self.beyond < MISSED
    }

    /// Probability that the loss is at the aggregate limit, or past the grid.
    pub fn beyond(&self) -> f64 {
        self.beyond
    }
}

/// `f[k] = (2 LEV(k h) - LEV((k-1) h) - LEV((k+1) h)) / h`, `f[0] = 1 - LEV(h) / h`.
///
/// Amounts past the grid are left out: a year with one of them is past the grid too.
fn discretised(severity: &Severity, n: usize, step: f64) -> Vec<f64> {
    let reached = ((severity.cap / step).ceil().min(n as f64) as usize) + 2;
    let levels: Vec<f64> = (0..=reached.min(n)).map(|k| severity.limited(1.0, k as f64 * step)).collect();
    let level = |k: usize| levels[k.min(levels.len() - 1)];
    (0..n)
        .map(|k| match k {
            0 => 1.0 - level(1) / step,
            _ if k + 1 > levels.len() => 0.0,
            _ => ((level(k) - level(k - 1)) - (level(k + 1) - level(k))) / step,
        })
        .collect()
}

#[test]
fn discretising_keeps_the_mean_and_all_mass() {
    for (severity, step) in [(Insurance::quickstart().claim, 2.0), (Insurance::quickstart().cat, 7.0)] {
        let masses = discretised(&severity, 1 << 16, step);
        let total: f64 = masses.iter().sum();
        let mean: f64 = masses.iter().enumerate().map(|(k, p)| k as f64 * step * p).sum();
        assert!((total - 1.0).abs() < 1e-10, "{total}");
        assert!((mean / severity.raw(1.0) - 1.0).abs() < 1e-9, "{mean}");
        assert!(masses.iter().all(|p| *p > -1e-12));
    }
}

/// Half of the catastrophes lie past the small grid; its probabilities must not notice.
#[test]
fn losses_past_the_grid_do_not_wrap_round() {
    let model = Insurance { aggregate_limit: 5_000.0, cat_prob: 0.5, ..Insurance::quickstart() };
    let (small, large) = (Aggregate::new(&model, 13, 2.0), Aggregate::new(&model, 17, 2.0));
    for k in [0, 10, 500, 2_000, 2_500] {
        let error = small.sums[k] - large.sums[k];
        assert!(error.abs() < 1e-6, "below {k} steps: {error}");
    }
    assert!((small.expect(|x| x) / large.expect(|x| x) - 1.0).abs() < 1e-5);
}

#[test]
fn unit_claims_are_a_poisson_count() {
    // Claims far above a limit of one are all equal to it: the year's loss is a Poisson number.
    let claim = Severity { mu: 50.0, sigma: 0.1, cap: 1.0 };
    let model = Insurance { claim_freq: 3.0, claim, cat_prob: 0.0, cat: claim, aggregate_limit: 1e9 };
    let found = Aggregate::new(&model, 8, 1.0);
    let mut expected = (-3.0f64).exp();
    for k in 0..30u32 {
        assert!((found.mass[k as usize] - expected).abs() < 1e-14, "{k}");
        expected *= 3.0 / f64::from(k + 1);
    }
}
