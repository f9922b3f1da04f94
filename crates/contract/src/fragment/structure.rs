//! Structural rules: what every fragment must satisfy, whoever computed it.

use super::{Distribution, Extrema, Fragment, Histogram, Moments, Part};
use crate::manifest::{PartKind, PartSpec};

/// Which structural rule a fragment breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// The parts are not those the manifest declares.
    #[error("part {index}: expected '{expected}', found '{found}'")]
    Parts {
        /// Position.
        index: usize,
        /// Name and kind declared.
        expected: String,
        /// Name and kind found.
        found: String,
    },
    /// A number that must be finite is not.
    #[error("part '{part}': {what} is not finite")]
    NotFinite {
        /// Name of the part.
        part: String,
        /// Which number.
        what: &'static str,
    },
    /// A rule of its kind.
    #[error("part '{part}': {rule}")]
    Rule {
        /// Name of the part.
        part: String,
        /// The rule.
        rule: &'static str,
    },
    /// A count that does not equal the items of work.
    #[error("part '{part}' counts {found} items where the work has {expected}")]
    Items {
        /// Name of the part.
        part: String,
        /// Items of the units.
        expected: u64,
        /// Items counted.
        found: u64,
    },
}

type Broken = Result<(), Fault>;

enum Fault {
    NotFinite(&'static str),
    Rule(&'static str),
}

impl Fragment {
    /// Checks the fragment against its declared parts and the items of work behind it.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self, specs: &[PartSpec], items: u64) -> Result<(), StructureError> {
        let pairs = specs.len().max(self.parts.len());
        for index in 0..pairs {
            let (spec, named) = (specs.get(index), self.parts.get(index));
            let (Some(spec), Some(named)) = (spec, named) else {
                return Err(parts_error(index, spec, named));
            };
            if spec.name != named.name || spec.kind != named.part.kind() {
                return Err(parts_error(index, Some(spec), Some(named)));
            }
            check_part(&named.part).map_err(|fault| match fault {
                Fault::NotFinite(what) => StructureError::NotFinite { part: spec.name.clone(), what },
                Fault::Rule(rule) => StructureError::Rule { part: spec.name.clone(), rule },
            })?;
            if let (true, Some(found)) = (spec.counts_items, counted(&named.part))
                && found != items
            {
                return Err(StructureError::Items { part: spec.name.clone(), expected: items, found });
            }
        }
        Ok(())
    }
}

fn parts_error(index: usize, spec: Option<&PartSpec>, named: Option<&super::Named>) -> StructureError {
    let show = |name: &str, kind: PartKind| format!("{name}: {kind:?}");
    StructureError::Parts {
        index,
        expected: spec.map_or_else(|| "nothing".into(), |s| show(&s.name, s.kind)),
        found: named.map_or_else(|| "nothing".into(), |n| show(&n.name, n.part.kind())),
    }
}

fn counted(part: &Part) -> Option<u64> {
    match part {
        Part::Count(n) => Some(*n),
        Part::Moments(m) => Some(m.n),
        Part::Histogram(h) => h.total(),
        Part::Distribution(d) => Some(d.moments.n),
        _ => None,
    }
}

fn check_part(part: &Part) -> Broken {
    match part {
        Part::Count(_) | Part::Bytes(_) => Ok(()),
        Part::Sum(x) => finite(*x, "sum"),
        Part::Moments(m) => check_moments(m),
        Part::Extrema(e) => check_extrema(e),
        Part::Histogram(h) => check_histogram(h),
        Part::Distribution(d) => check_distribution(d),
        Part::MatrixSum(m) => {
            let cells = u64::from(m.rows) * u64::from(m.columns);
            rule(cells == m.values.len() as u64, "rows x columns is the number of values")?;
            m.values.iter().try_for_each(|v| finite(*v, "value"))
        }
        Part::Tiles(tiles) => tiles.iter().try_for_each(|t| {
            let cells = u64::from(t.at.rows) * u64::from(t.at.columns);
            rule(
                cells.checked_mul(t.number.bytes()) == Some(t.values.len() as u64),
                "a tile's bytes are rows x columns numbers",
            )
        }),
        Part::Rows(r) => {
            let row = u64::from(r.columns) * r.number.bytes();
            rule(row > 0 && (r.values.len() as u64).is_multiple_of(row), "rows are whole and have columns")
        }
        Part::Segments(segments) => {
            let pairs = segments.iter().zip(segments.iter().skip(1));
            rule(pairs.clone().all(|(a, b)| a.at.end == b.at.start), "segments meet")?;
            rule(segments.iter().all(|s| s.at.start < s.at.end), "a segment ends after it starts")
        }
    }
}

fn finite(value: f64, what: &'static str) -> Broken {
    if value.is_finite() { Ok(()) } else { Err(Fault::NotFinite(what)) }
}

fn rule(holds: bool, rule: &'static str) -> Broken {
    if holds { Ok(()) } else { Err(Fault::Rule(rule)) }
}

fn check_moments(m: &Moments) -> Broken {
    for value in [m.mean, m.m2, m.m3, m.m4] {
        finite(value, "moment")?;
    }
    rule(m.m2 >= 0.0 && m.m4 >= 0.0, "even moments are not negative")?;
    rule(m.n > 0 || (m.mean, m.m2, m.m3, m.m4) == (0.0, 0.0, 0.0, 0.0), "moments of nothing are zero")
}

fn check_extrema(e: &Extrema) -> Broken {
    finite(e.min, "minimum")?;
    finite(e.max, "maximum")?;
    rule(e.min <= e.max, "the minimum is at most the maximum")
}

fn check_histogram(h: &Histogram) -> Broken {
    rule((4..=20).contains(&h.mantissa_bits), "mantissa bits are 4 to 20")?;
    let rising = h.buckets.iter().zip(h.buckets.iter().skip(1)).all(|(a, b)| a.0 < b.0);
    rule(rising, "bucket keys rise")?;
    rule(h.buckets.iter().all(|(_, count)| *count > 0), "no bucket is empty")?;
    let bits = 12 + u32::from(h.mantissa_bits);
    let finite_keys = h.buckets.iter().all(|(key, _)| {
        let exponent = (key >> h.mantissa_bits) & 0x7ff;
        u64::from(*key) < 1u64 << bits && exponent != 0x7ff
    });
    rule(finite_keys, "bucket keys are those of finite values")?;
    rule(h.total().is_some(), "counts add up within 64 bits")
}

fn check_distribution(d: &Distribution) -> Broken {
    check_moments(&d.moments)?;
    check_extrema(&d.extrema)?;
    check_histogram(&d.histogram)?;
    rule(d.moments.n > 0, "a distribution has values")?;
    rule(d.histogram.total() == Some(d.moments.n), "the histogram's total is the moments' n")?;
    let bits = d.histogram.mantissa_bits;
    let mut ordered = d.histogram.by_value();
    let first = ordered.next().map(|(key, _)| key);
    let last = ordered.last().map(|(key, _)| key).or(first);
    let ends = first == Some(Histogram::key(d.extrema.min, bits)) && last == Some(Histogram::key(d.extrema.max, bits));
    rule(ends, "the outer buckets hold the extrema")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Fragment, Named};
    use super::*;

    fn spec(kind: PartKind) -> PartSpec {
        PartSpec { name: "x".into(), kind, counts_items: true, shown: true, unit: None }
    }

    fn of(part: Part) -> Fragment {
        Fragment { parts: vec![Named { name: "x".into(), part }] }
    }

    fn distribution(values: &[f64]) -> Distribution {
        let mut counts = std::collections::BTreeMap::new();
        for value in values {
            *counts.entry(Histogram::key(*value, 10)).or_insert(0u64) += 1;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let power = |k: i32| values.iter().map(|x| (x - mean).powi(k)).sum::<f64>();
        Distribution {
            moments: Moments { n: values.len() as u64, mean, m2: power(2), m3: power(3), m4: power(4) },
            extrema: Extrema {
                min: values.iter().copied().fold(f64::INFINITY, f64::min),
                max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            },
            histogram: Histogram { mantissa_bits: 10, buckets: counts.into_iter().collect() },
        }
    }

    #[test]
    fn an_honest_distribution_passes_with_either_sign() {
        for values in [&[1.0, 2.0, 3.0][..], &[-5.0, -1.0, 0.0, 7.0], &[0.0], &[-0.0, -2.0]] {
            let fragment = of(Part::Distribution(distribution(values)));
            fragment.check(&[spec(PartKind::Distribution)], values.len() as u64).unwrap();
        }
    }

    #[test]
    fn each_lie_is_named() {
        let honest = distribution(&[1.0, 2.0, 3.0]);
        let check = |d: Distribution, items| of(Part::Distribution(d)).check(&[spec(PartKind::Distribution)], items);
        assert!(matches!(check(honest.clone(), 4), Err(StructureError::Items { expected: 4, found: 3, .. })));
        let mut lie = honest.clone();
        lie.histogram.buckets.pop();
        assert!(matches!(
            check(lie, 3),
            Err(StructureError::Rule { rule: "the histogram's total is the moments' n", .. })
        ));
        let mut lie = honest.clone();
        lie.extrema.max = 4.0;
        assert!(matches!(check(lie, 3), Err(StructureError::Rule { rule: "the outer buckets hold the extrema", .. })));
        let mut lie = honest.clone();
        lie.moments.m3 = f64::NAN;
        assert!(matches!(check(lie, 3), Err(StructureError::NotFinite { .. })));
        let other = of(Part::Count(3)).check(&[spec(PartKind::Distribution)], 3);
        assert!(matches!(other, Err(StructureError::Parts { index: 0, .. })));
        assert!(matches!(
            Fragment { parts: vec![] }.check(&[spec(PartKind::Count)], 0),
            Err(StructureError::Parts { .. })
        ));
    }
}
