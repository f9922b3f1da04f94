//! The distribution surface: moments, quantiles, tail means, exceedance, a plot.
//!
//! - **Quantile p**: the smallest value whose cumulative count reaches `ceil(p n)`; reported is the middle of its
//!   bucket, clamped to the extrema. The zero bucket reports 0.
//! - **Tail mean p** (TVaR): the mean of the largest `ceil((1 - p) n)` values, each taken as the middle of its bucket.
//! - **Variance**: unbiased (n - 1). **Skewness** `sqrt(n) m3 / m2^1.5`, **kurtosis** `n m4 / m2^2` (3 for a normal).
//! - **Exceedance** points and plot counts are exact: they stand on bucket edges.

use forge_contract::fragment::{Distribution, Extrema, Histogram, Moments};
use serde_json::{Map, Value, json};

use super::NORMAL_975;

/// Quantiles reported: name, and p in thousandths.
const QUANTILES: [(&str, u64); 7] =
    [("p50", 500), ("p75", 750), ("p90", 900), ("p95", 950), ("p99", 990), ("p99.5", 995), ("p99.9", 999)];
/// Exceedance probabilities plotted, in units of 1e-8.
const EXCEEDED: [u64; 40] = [
    99_000_000, 97_500_000, 95_000_000, 90_000_000, 85_000_000, 80_000_000, 75_000_000, 70_000_000, 65_000_000,
    60_000_000, 55_000_000, 50_000_000, 45_000_000, 40_000_000, 35_000_000, 30_000_000, 25_000_000, 20_000_000,
    15_000_000, 10_000_000, 7_500_000, 5_000_000, 4_000_000, 3_000_000, 2_000_000, 1_500_000, 1_000_000, 750_000,
    500_000, 300_000, 200_000, 100_000, 50_000, 20_000, 10_000, 5_000, 1_000, 100, 10, 1,
];
/// Values a plotted tail point must have beyond it.
const TAIL_MIN: u64 = 10;
/// Bins of the plot.
const BINS: u64 = 40;

/// Buckets by rising value with their edges, clamped to the extrema.
struct Ordered {
    buckets: Vec<Bucket>,
    total: u64,
}

#[derive(Clone, Copy)]
struct Bucket {
    lower: f64,
    upper: f64,
    middle: f64,
    count: u64,
}

impl Ordered {
    fn new(histogram: &Histogram, extrema: Option<Extrema>) -> Self {
        let bits = histogram.mantissa_bits;
        let clamp = |value: f64| match extrema {
            Some(Extrema { min, max }) if min <= max => value.clamp(min, max),
            _ => value,
        };
        let bucket = |(key, count): (u32, u64)| {
            let (lower, upper) = Histogram::edges(key, bits);
            let (lower, upper) = (lower.max(f64::MIN), upper.min(f64::MAX));
            let middle = if key == 0 { 0.0 } else { lower + (upper - lower) / 2.0 };
            Bucket { lower: clamp(lower), upper: clamp(upper), middle: clamp(middle), count }
        };
        let buckets: Vec<Bucket> = histogram.by_value().map(bucket).collect();
        let total = buckets.iter().fold(0u64, |sum, bucket| sum.saturating_add(bucket.count));
        Self { buckets, total }
    }

    /// The value of rank `rank` (1 is the smallest).
    fn ranked(&self, rank: u64) -> f64 {
        let mut seen = 0u64;
        let found = self.buckets.iter().find(|bucket| {
            seen = seen.saturating_add(bucket.count);
            seen >= rank
        });
        found.or(self.buckets.last()).map_or(0.0, |bucket| bucket.middle)
    }

    /// Quantile p, in thousandths.
    fn quantile(&self, permille: u64) -> f64 {
        self.ranked(share(self.total, permille, 1000).max(1))
    }

    /// The mean of the largest `ceil((1 - p) n)` values.
    fn tail_mean(&self, permille: u64) -> f64 {
        let tail = share(self.total, 1000 - permille, 1000).max(1);
        let (mut left, mut sum) = (tail, 0.0);
        for bucket in self.buckets.iter().rev() {
            let taken = bucket.count.min(left);
            sum += bucket.middle * taken as f64;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        sum / (tail - left).max(1) as f64
    }

    /// Points (value, share of values at or above it, or above it where it is 0), exact at bucket edges.
    fn exceedance(&self) -> Vec<Value> {
        let mut points: Vec<Value> = Vec::new();
        let (mut above, mut levels) = (self.total, EXCEEDED.iter().peekable());
        for bucket in &self.buckets {
            above -= bucket.count;
            let mut passed = false;
            // The first bucket edge above which at most the wanted share is left.
            while levels
                .next_if(|level| u128::from(above) * 100_000_000 <= u128::from(self.total) * u128::from(**level))
                .is_some()
            {
                passed = true;
            }
            if passed && above >= TAIL_MIN.min(self.total / 100) && above > 0 {
                // Only exact zeros lie below the smallest normal number: the point says how many are above zero.
                let edge = if bucket.upper.is_normal() { bucket.upper } else { 0.0 };
                points.push(json!({ "loss": edge, "probability": above as f64 / self.total as f64 }));
            }
        }
        points
    }

    /// Counts per bin between bucket edges: bins of equal width, or of equal ratio where the values span far.
    fn plot(&self) -> Value {
        let (Some(first), Some(last)) = (self.buckets.first(), self.buckets.last()) else {
            return json!({ "scale": "linear", "edges": [], "counts": [] });
        };
        let (lowest, highest) = (first.lower, last.upper);
        let median = self.ranked(share(self.total, 1, 2).max(1));
        let wide = lowest >= 0.0 && highest > 20.0 * median && highest > 0.0;
        let targets = if wide { self.ratios(highest) } else { steps(lowest, highest) };
        let (mut edges, mut counts, mut open) = (vec![lowest], Vec::new(), 0u64);
        let mut targets = targets.into_iter().peekable();
        for (bucket, next) in self.buckets.iter().zip(self.buckets.iter().skip(1).map(Some).chain([None])) {
            open = open.saturating_add(bucket.count);
            let mut full = false;
            while targets.next_if(|target| next.is_none_or(|next| next.lower >= *target)).is_some() {
                full = true;
            }
            if full || next.is_none() {
                edges.push(next.map_or(highest, |next| next.lower));
                counts.push(open);
                open = 0;
            }
        }
        json!({ "scale": if wide { "log" } else { "linear" }, "edges": edges, "counts": counts })
    }

    /// Edges of equal steps in the key of a double: piecewise equal ratios, without a logarithm.
    fn ratios(&self, highest: f64) -> Vec<f64> {
        let zeros: u64 = self.buckets.iter().take_while(|bucket| bucket.middle <= 0.0).map(|bucket| bucket.count).sum();
        let positive = self.total - zeros;
        let low = self.ranked(zeros + share(positive, 5, 1000).max(1));
        let (from, to) = (low.to_bits() >> 32, highest.to_bits() >> 32);
        let step = (to.saturating_sub(from) / BINS).max(1);
        (0..BINS).map(|bin| f64::from_bits((from + bin * step) << 32)).collect()
    }
}

fn steps(lowest: f64, highest: f64) -> Vec<f64> {
    (1..BINS).map(|bin| lowest + (highest - lowest) * (bin as f64 / BINS as f64)).collect()
}

/// `ceil(total * part / whole)`.
fn share(total: u64, part: u64, whole: u64) -> u64 {
    let product = u128::from(total) * u128::from(part);
    u64::try_from(product.div_ceil(u128::from(whole))).unwrap_or(u64::MAX)
}

fn insert(members: &mut Map<String, Value>, name: &str, value: f64) {
    // A number that is not finite has no JSON: null says that it is not defined.
    members.insert(name.to_owned(), json!(value.is_finite().then_some(value)));
}

fn moment_members(m: &Moments) -> Map<String, Value> {
    let mut members = Map::new();
    let n = m.n as f64;
    members.insert("n".into(), json!(m.n));
    insert(&mut members, "mean", m.mean);
    let variance = if m.n > 1 { m.m2 / (n - 1.0) } else { f64::NAN };
    let error = (variance / n).sqrt();
    insert(&mut members, "variance", variance);
    insert(&mut members, "std_dev", variance.sqrt());
    insert(&mut members, "std_error", error);
    let (low, high) = (m.mean - NORMAL_975 * error, m.mean + NORMAL_975 * error);
    members.insert("ci95".into(), if low.is_finite() && high.is_finite() { json!([low, high]) } else { Value::Null });
    insert(&mut members, "skewness", n.sqrt() * m.m3 / (m.m2 * m.m2.sqrt()));
    insert(&mut members, "kurtosis", n * m.m4 / (m.m2 * m.m2));
    members
}

fn histogram_members(members: &mut Map<String, Value>, histogram: &Histogram, extrema: Option<Extrema>) {
    let ordered = Ordered::new(histogram, extrema);
    if ordered.total == 0 {
        return;
    }
    for (name, permille) in QUANTILES {
        insert(members, name, ordered.quantile(permille));
    }
    // The middle of a bucket is at most half its width from any value in it: 2^-(bits + 1) of the value.
    insert(members, "quantile_relative_error", 1.0 / (1u64 << (u32::from(histogram.mantissa_bits.min(20)) + 1)) as f64);
    insert(members, "tvar95", ordered.tail_mean(950));
    insert(members, "tvar99", ordered.tail_mean(990));
    let zeros = histogram.buckets.first().filter(|(key, _)| *key == 0).map_or(0, |(_, count)| *count);
    insert(members, "share_zero", zeros as f64 / ordered.total as f64);
    members.insert("exceedance".into(), ordered.exceedance().into());
    members.insert("histogram".into(), ordered.plot());
}

/// Moments as JSON.
pub fn moments(m: &Moments) -> Value {
    Value::Object(moment_members(m))
}

/// A histogram as JSON.
pub fn histogram(h: &Histogram) -> Value {
    let mut members = Map::new();
    members.insert("n".into(), json!(h.total()));
    histogram_members(&mut members, h, None);
    Value::Object(members)
}

/// A distribution as JSON.
pub fn distribution(d: &Distribution) -> Value {
    let mut members = moment_members(&d.moments);
    insert(&mut members, "min", d.extrema.min);
    insert(&mut members, "max", d.extrema.max);
    histogram_members(&mut members, &d.histogram, Some(d.extrema));
    Value::Object(members)
}

#[cfg(test)]
mod tests;
