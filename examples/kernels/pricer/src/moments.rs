//! Central moments of values of either sign, block by block.

use forge_sdk_guest::Moments;

/// Moments of the blocks added so far.
#[derive(Clone, Copy)]
pub struct Sums(Moments);

impl Default for Sums {
    fn default() -> Self {
        Self(Moments { n: 0, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0 })
    }
}

impl Sums {
    /// Adds a block: its own moments in two passes, then merged.
    ///
    /// **Source**: P. Pebay, SAND2008-6212, 2008, for two sets of any size.
    pub fn add(&mut self, values: &[f64]) {
        if values.is_empty() {
            return;
        }
        let (a, b) = (&self.0, of_block(values));
        let (na, nb) = (a.n as f64, b.n as f64);
        let n = na + nb;
        let delta = b.mean - a.mean;
        let step = delta / n;
        let cross = delta * step * na * nb;
        self.0 = Moments {
            n: a.n + b.n,
            mean: a.mean + step * nb,
            m2: a.m2 + b.m2 + cross,
            m3: a.m3 + b.m3 + cross * step * (na - nb) + 3.0 * step * (na * b.m2 - nb * a.m2),
            m4: a.m4
                + b.m4
                + cross * step * step * (na * na - na * nb + nb * nb)
                + 6.0 * step * step * (na * na * b.m2 + nb * nb * a.m2)
                + 4.0 * step * (na * b.m3 - nb * a.m3),
        };
    }

    /// The moments.
    pub fn finish(self) -> Moments {
        self.0
    }
}

fn of_block(values: &[f64]) -> Moments {
    let mut sum = 0.0;
    values.iter().for_each(|value| sum += value);
    let mean = sum / values.len() as f64;
    let mut found = Moments { n: values.len() as u64, mean, m2: 0.0, m3: 0.0, m4: 0.0 };
    for value in values {
        let d = value - mean;
        let square = d * d;
        found.m2 += square;
        found.m3 += square * d;
        found.m4 += square * square;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_agrees_with_the_definition() {
        let values: Vec<f64> = (0..5_000).map(|i| f64::from(i * 7919 % 1000) - 300.0 + f64::from(i % 3)).collect();
        let whole = of_block(&values);
        for block in [1, 7, 1024] {
            let mut sums = Sums::default();
            values.chunks(block).for_each(|chunk| sums.add(chunk));
            let found = sums.finish();
            assert_eq!(found.n, whole.n);
            for (a, b) in [(found.mean, whole.mean), (found.m2, whole.m2), (found.m3, whole.m3), (found.m4, whole.m4)] {
                assert!((a - b).abs() <= 1e-9 * b.abs(), "blocks of {block}: {a} {b}");
            }
        }
    }
}
