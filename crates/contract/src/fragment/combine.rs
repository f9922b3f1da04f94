//! Folding two neighbours: `left` covers the units just before `right`.

use super::{Distribution, Extrema, Fragment, Histogram, Matrix, Moments, Part, Rows};

/// Why two neighbouring fragments cannot be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CombineError {
    /// The parts differ in number, name, kind, shape or type.
    #[error("part '{part}': {what} differ")]
    Mismatch {
        /// Name of the part.
        part: String,
        /// What differs.
        what: &'static str,
    },
    /// A count beyond 64 bits, or a sum that is not finite.
    #[error("part '{part}': {what} leaves its range")]
    Overflow {
        /// Name of the part.
        part: String,
        /// What overflows.
        what: &'static str,
    },
    /// Rows or segments that do not meet.
    #[error("part '{part}': the right piece starts at {found}, the left one ends at {expected}")]
    Gap {
        /// Name of the part.
        part: String,
        /// Where the left one ends.
        expected: i128,
        /// Where the right one starts.
        found: i128,
    },
}

enum Fault {
    Differ(&'static str),
    Range(&'static str),
    Gap(i128, i128),
}

impl Fault {
    fn named(self, part: &str) -> CombineError {
        let part = part.to_owned();
        match self {
            Self::Differ(what) => CombineError::Mismatch { part, what },
            Self::Range(what) => CombineError::Overflow { part, what },
            Self::Gap(expected, found) => CombineError::Gap { part, expected, found },
        }
    }
}

impl Fragment {
    /// Folds `right` into `self`, part by part.
    ///
    /// Determinism: integer parts are exact; double parts are one rounding per operation in the order written here,
    /// so equal inputs give equal bits on every IEEE 754 machine.
    ///
    /// # Errors
    /// `CombineError`; `self` is then in an unspecified state and must be dropped.
    pub fn combine(&mut self, right: Self) -> Result<(), CombineError> {
        if self.parts.len() != right.parts.len() {
            return Err(Fault::Differ("numbers of parts").named(""));
        }
        for (left, right) in self.parts.iter_mut().zip(right.parts) {
            if left.name != right.name {
                return Err(Fault::Differ("names of parts").named(&left.name));
            }
            left.part.fold(right.part).map_err(|fault| fault.named(&left.name))?;
        }
        Ok(())
    }
}

impl Part {
    fn fold(&mut self, right: Self) -> Result<(), Fault> {
        match (self, right) {
            (Self::Count(a), Self::Count(b)) => {
                *a = a.checked_add(b).ok_or(Fault::Range("count"))?;
                Ok(())
            }
            (Self::Sum(a), Self::Sum(b)) => {
                *a += b;
                finite(*a, "sum")
            }
            (Self::Moments(a), Self::Moments(b)) => fold_moments(a, b),
            (Self::Extrema(a), Self::Extrema(b)) => {
                fold_extrema(a, b);
                Ok(())
            }
            (Self::Histogram(a), Self::Histogram(b)) => fold_histogram(a, b),
            (Self::Distribution(a), Self::Distribution(b)) => fold_distribution(a, b),
            (Self::MatrixSum(a), Self::MatrixSum(b)) => fold_matrix(a, b),
            (Self::Tiles(a), Self::Tiles(mut b)) => {
                a.append(&mut b);
                Ok(())
            }
            (Self::Rows(a), Self::Rows(b)) => fold_rows(a, b),
            (Self::Segments(a), Self::Segments(mut b)) => {
                if let (Some(last), Some(first)) = (a.last(), b.first())
                    && last.at.end != first.at.start
                {
                    return Err(Fault::Gap(last.at.end.into(), first.at.start.into()));
                }
                a.append(&mut b);
                Ok(())
            }
            (Self::Bytes(a), Self::Bytes(mut b)) => {
                a.append(&mut b);
                Ok(())
            }
            _ => Err(Fault::Differ("kinds")),
        }
    }
}

fn finite(value: f64, what: &'static str) -> Result<(), Fault> {
    if value.is_finite() { Ok(()) } else { Err(Fault::Range(what)) }
}

/// Pebay 2008, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical
/// Moments", SAND2008-6212, equations for p = 2, 3, 4.
fn fold_moments(a: &mut Moments, b: Moments) -> Result<(), Fault> {
    if b.n == 0 {
        return Ok(());
    }
    if a.n == 0 {
        *a = b;
        return Ok(());
    }
    let n = a.n.checked_add(b.n).ok_or(Fault::Range("count"))?;
    let (na, nb, nn) = (a.n as f64, b.n as f64, n as f64);
    let delta = b.mean - a.mean;
    let step = delta / nn;
    let step2 = step * step;
    let pair = delta * step * na * nb;
    let m4 = a.m4
        + b.m4
        + pair * step2 * (na * na - na * nb + nb * nb)
        + 6.0 * step2 * (na * na * b.m2 + nb * nb * a.m2)
        + 4.0 * step * (na * b.m3 - nb * a.m3);
    let m3 = a.m3 + b.m3 + pair * step * (na - nb) + 3.0 * step * (na * b.m2 - nb * a.m2);
    *a = Moments { n, mean: a.mean + nb * step, m2: a.m2 + b.m2 + pair, m3, m4 };
    for value in [a.mean, a.m2, a.m3, a.m4] {
        finite(value, "moments")?;
    }
    Ok(())
}

fn fold_extrema(a: &mut Extrema, b: Extrema) {
    if b.min < a.min {
        a.min = b.min;
    }
    if b.max > a.max {
        a.max = b.max;
    }
}

fn fold_histogram(a: &mut Histogram, b: Histogram) -> Result<(), Fault> {
    if a.mantissa_bits != b.mantissa_bits {
        return Err(Fault::Differ("mantissa bits"));
    }
    if a.buckets.is_empty() {
        a.buckets = b.buckets;
        return Ok(());
    }
    let left = core::mem::take(&mut a.buckets);
    let mut merged = Vec::with_capacity(left.len().max(b.buckets.len()) + left.len().min(b.buckets.len()) / 2);
    let (mut left, mut right) = (left.into_iter().peekable(), b.buckets.into_iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some((key, count)), Some((other, more))) if key == other => {
                merged.push((*key, count.checked_add(*more).ok_or(Fault::Range("bucket count"))?));
                left.next();
                right.next();
            }
            (Some((key, _)), Some((other, _))) if key < other => merged.extend(left.next()),
            (_, Some(_)) => merged.extend(right.next()),
            (Some(_), None) => merged.extend(left.next()),
            (None, None) => break,
        }
    }
    a.buckets = merged;
    Ok(())
}

fn fold_distribution(a: &mut Distribution, b: Distribution) -> Result<(), Fault> {
    if b.moments.n > 0 {
        if a.moments.n == 0 {
            a.extrema = b.extrema;
        } else {
            fold_extrema(&mut a.extrema, b.extrema);
        }
    }
    fold_moments(&mut a.moments, b.moments)?;
    fold_histogram(&mut a.histogram, b.histogram)
}

fn fold_matrix(a: &mut Matrix, b: Matrix) -> Result<(), Fault> {
    if (a.rows, a.columns) != (b.rows, b.columns) || a.values.len() != b.values.len() {
        return Err(Fault::Differ("shapes"));
    }
    for (left, right) in a.values.iter_mut().zip(b.values) {
        *left += right;
        finite(*left, "matrix sum")?;
    }
    Ok(())
}

fn fold_rows(a: &mut Rows, mut b: Rows) -> Result<(), Fault> {
    if a.columns != b.columns || a.number != b.number {
        return Err(Fault::Differ("row types"));
    }
    let row_bytes = u64::from(a.columns) * a.number.bytes();
    let held = (a.values.len() as u64).checked_div(row_bytes).unwrap_or(0);
    let end = i128::from(a.first) + i128::from(held);
    if end != i128::from(b.first) {
        return Err(Fault::Gap(end, b.first.into()));
    }
    a.values.append(&mut b.values);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn moments(values: &[f64]) -> Moments {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let power = |k: i32| values.iter().map(|x| (x - mean).powi(k)).sum::<f64>();
        Moments { n: values.len() as u64, mean, m2: power(2), m3: power(3), m4: power(4) }
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-9 * scale.max(1.0)
    }

    proptest! {
        #[test]
        fn folded_moments_are_those_of_all_values(
            a in prop::collection::vec(-1e3f64..1e3, 1..60),
            b in prop::collection::vec(-1e3f64..1e3, 1..60),
        ) {
            let mut folded = moments(&a);
            assert!(fold_moments(&mut folded, moments(&b)).is_ok());
            let all: Vec<f64> = a.iter().chain(&b).copied().collect();
            let direct = moments(&all);
            prop_assert_eq!(folded.n, direct.n);
            prop_assert!(close(folded.mean, direct.mean, 1e3));
            prop_assert!(close(folded.m2, direct.m2, direct.m2));
            prop_assert!(close(folded.m3, direct.m3, 1e9 * all.len() as f64));
            prop_assert!(close(folded.m4, direct.m4, direct.m4));
        }

        #[test]
        fn histograms_fold_like_counting(values in prop::collection::vec(-1e6f64..1e6, 0..200), cut: usize) {
            let histogram = |values: &[f64]| {
                let mut counts = std::collections::BTreeMap::new();
                for value in values {
                    *counts.entry(Histogram::key(*value, 10)).or_insert(0u64) += 1;
                }
                Histogram { mantissa_bits: 10, buckets: counts.into_iter().collect() }
            };
            let (a, b) = values.split_at(cut % (values.len() + 1));
            let mut folded = histogram(a);
            assert!(fold_histogram(&mut folded, histogram(b)).is_ok());
            prop_assert_eq!(folded, histogram(&values));
        }
    }

    #[test]
    fn overflow_is_an_error() {
        let mut a = Part::Count(u64::MAX);
        assert!(a.fold(Part::Count(1)).is_err());
        let mut a = Part::Sum(f64::MAX);
        assert!(a.fold(Part::Sum(f64::MAX)).is_err());
    }

    #[test]
    fn rows_must_meet() {
        let rows = |first| Rows { first, columns: 1, number: super::super::Number::Int32, values: vec![0; 8] };
        let mut a = rows(0);
        assert!(fold_rows(&mut a, rows(2)).is_ok());
        assert!(matches!(fold_rows(&mut a, rows(5)), Err(Fault::Gap(4, 5))));
    }
}
