//! What a run of n policy years may show: every statistic with its own standard error, from the truth alone.
//!
//! Source of the standard errors of variance, skewness, kurtosis and tail mean: their influence functions
//! (P. J. Huber, Robust Statistics, 1981, chapter 1); of a quantile: the binomial number of years below it.

use crate::aggregate::Aggregate;
use crate::model::Insurance;

/// The gate, in standard errors.
const ERRORS: f64 = 5.0;

/// The least and the greatest value that a statistic may have.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub least: f64,
    pub greatest: f64,
}

impl Bounds {
    /// `centre` within the gate, and within rounding.
    fn around(centre: f64, variance_of_one: f64, n: f64) -> Self {
        let reach = ERRORS * (variance_of_one.max(0.0) / n).sqrt() + 1e-11 * centre.abs();
        Self { least: centre - reach, greatest: centre + reach }
    }

    /// Wider by `share` of each end's size.
    #[must_use]
    pub fn widened(self, share: f64) -> Self {
        Self { least: self.least - share * self.least.abs(), greatest: self.greatest + share * self.greatest.abs() }
    }

    #[track_caller]
    pub fn hold(self, what: &str, found: f64) {
        let inside = self.least <= found && found <= self.greatest;
        assert!(inside, "{what}: {found} is not within {} .. {}", self.least, self.greatest);
    }
}

/// The truth of one contract, and what n years of it may show.
pub struct Expected {
    pub model: Insurance,
    pub grid: Aggregate,
    pub mean: f64,
    pub variance: f64,
    /// The fourth central moment.
    fourth: f64,
    n: f64,
}

impl Expected {
    /// `bits` and `step`: the grid, `2^bits` points.
    pub fn new(model: Insurance, n: u64, bits: u32, step: f64) -> Self {
        let grid = Aggregate::new(&model, bits, step);
        let (mean, variance, fourth) = if grid.covers() {
            let mean = grid.expect(|x| x);
            (mean, grid.expect(|x| (x - mean).powi(2)), grid.expect(|x| (x - mean).powi(4)))
        } else {
            let [mean, variance, _, fourth] = model.cumulants();
            (mean, variance, fourth + 3.0 * variance * variance)
        };
        Self { model, grid, mean, variance, fourth, n: n as f64 }
    }

    pub fn mean(&self) -> Bounds {
        Bounds::around(self.mean, self.variance, self.n)
    }

    pub fn variance(&self) -> Bounds {
        Bounds::around(self.variance, self.fourth - self.variance * self.variance, self.n)
    }

    /// Share of years without loss.
    pub fn zero(&self) -> Bounds {
        // A limit of nothing makes every year one without loss.
        let lossless = self.model.claim.cap == 0.0 || self.model.aggregate_limit == 0.0;
        let p = if lossless { 1.0 } else { self.model.p_zero() };
        Bounds::around(p, p * (1.0 - p), self.n)
    }

    /// Share of years with a loss above `x`.
    pub fn above(&self, x: f64) -> Bounds {
        let (least, greatest) = self.grid.below(x);
        // Bernstein's inequality: where hardly a year is expected, a handful is no surprise.
        let handful = ERRORS * ERRORS / 3.0 / self.n;
        let reach = |p: f64| ERRORS * (p * (1.0 - p) / self.n).max(0.0).sqrt() + handful;
        Bounds { least: 1.0 - greatest - reach(greatest), greatest: 1.0 - least + reach(least) }
    }

    /// The p-quantile: where the truth's quantiles of the outermost likely shares lie.
    pub fn quantile(&self, p: f64) -> Bounds {
        let reach = ERRORS * (p * (1.0 - p) / self.n).sqrt();
        let at = |p: f64| if p <= 0.0 { 0.0 } else { self.grid.quantile(p.min(1.0)) };
        Bounds { least: at(p - reach) - self.grid.step, greatest: at(p + reach) + self.grid.step }
    }

    /// Mean of the losses in the worst `1 - p` of years: `q + E[(loss - q)+] / (1 - p)`.
    pub fn tail_mean(&self, p: f64) -> Bounds {
        let at = self.grid.quantile(p);
        let (first, second) = self.excess(at);
        let tail = at + first / (1.0 - p);
        let bounds = Bounds::around(tail, (second - first * first) / (1.0 - p).powi(2), self.n);
        Bounds { least: bounds.least - self.grid.step, greatest: bounds.greatest + self.grid.step }
    }

    /// `E[(loss - at)+]` and `E[(loss - at)+^2]`; off the grid by way of the whole moments.
    fn excess(&self, at: f64) -> (f64, f64) {
        if self.grid.covers() {
            return (self.grid.expect(|x| (x - at).max(0.0)), self.grid.expect(|x| (x - at).max(0.0).powi(2)));
        }
        let first = self.mean - at + self.grid.expect(|x| (at - x).max(0.0));
        let second = self.variance + (self.mean - at).powi(2) - self.grid.expect(|x| (at - x).max(0.0).powi(2));
        (first, second)
    }

    /// Expected loss to the layer `width` in excess of `from`.
    pub fn layer(&self, from: f64, width: f64) -> Bounds {
        let share = |x: f64| (x - from).clamp(0.0, width);
        let past = |f: f64| if self.grid.closed { 0.0 } else { self.grid.beyond() * f };
        let mean = self.grid.expect(share) + past(width);
        let second = self.grid.expect(|x| share(x).powi(2)) + past(width * width);
        Bounds::around(mean, second - mean * mean, self.n)
    }

    /// Skewness; only where the grid holds the whole distribution.
    pub fn skewness(&self) -> Option<Bounds> {
        self.shape(|z, skewness, _| z.powi(3) - skewness - 1.5 * skewness * (z * z - 1.0) - 3.0 * z, 3)
    }

    /// Kurtosis, 3 for a normal; only where the grid holds the whole distribution.
    pub fn kurtosis(&self) -> Option<Bounds> {
        self.shape(
            |z, skewness, kurtosis| z.powi(4) - kurtosis - 2.0 * kurtosis * (z * z - 1.0) - 4.0 * skewness * z,
            4,
        )
    }

    fn shape(&self, influence: impl Fn(f64, f64, f64) -> f64, power: i32) -> Option<Bounds> {
        let scale = self.variance.sqrt();
        if !self.grid.covers() || scale == 0.0 {
            return None;
        }
        let z = |x: f64| (x - self.mean) / scale;
        let (skewness, kurtosis) = (self.grid.expect(|x| z(x).powi(3)), self.grid.expect(|x| z(x).powi(4)));
        let spread = self.grid.expect(|x| influence(z(x), skewness, kurtosis).powi(2));
        Some(Bounds::around(if power == 3 { skewness } else { kurtosis }, spread, self.n))
    }
}

#[test]
fn standard_errors_are_the_published_ones() {
    let expected = Expected::new(Insurance::quickstart(), 1_000_000, 18, 1.0);
    let error = |bounds: Bounds| (bounds.greatest - bounds.least) / 2.0 / ERRORS;
    assert!((error(expected.mean()) / 4.788 - 1.0).abs() < 1e-3);
    assert!((error(expected.variance()) / 205_364.0 - 1.0).abs() < 1e-3);
    assert!((error(expected.zero()) / 3.4e-4 - 1.0).abs() < 0.02);
    assert!((error(expected.quantile(0.5)) - 0.2 - 1.46).abs() < 0.02);
    assert!((error(expected.quantile(0.9)) - 0.2 - 5.5).abs() < 0.2);
}
