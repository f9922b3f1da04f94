//! Poisson counts by inversion of a table, kept as numbers of draws per value: within a block, which year has which
//! count does not matter, only how many years have more than j claims.

use forge_sdk_guest::rng::Generator;

use crate::model::BLOCK;

/// Cells of equal probability that a 16-bit draw is looked up in (its low four bits are not used).
const CELLS: usize = 4096;
const CELL_SHIFT: u32 = 52;
/// A value or a cell that holds several; a power of two, so that an index needs no check.
const SLOTS: usize = 8192;
/// Terms below this fraction of the largest are left out: their sum is below 2^-64.
const NEGLIGIBLE: f64 = 1e-24;

/// A Poisson law with mean from above 0 up to 10,000.
pub(crate) struct Poisson {
    /// Smallest value with a probability worth keeping.
    first: usize,
    /// `thresholds[i]` is `2^64 P(K <= first + i)`; the greatest value has none.
    thresholds: Vec<u64>,
    /// Per cell: its value less `first` where it has one, else the slot of its place in `mixed`.
    guide: Box<[u16; CELLS]>,
    /// Cells that hold a threshold.
    mixed: Vec<u16>,
}

/// How many of a block's years have each number of claims.
pub(crate) struct Tally {
    /// Two counts per slot, so that equal neighbours do not wait for each other.
    even: Box<[u16; SLOTS]>,
    odd: Box<[u16; SLOTS]>,
}

impl Poisson {
    /// The law with this mean.
    pub(crate) fn new(mean: f64) -> Self {
        let (first, weights) = weights(mean);
        let thresholds = thresholds(&weights, first, mean);
        let mut guide = Box::new([0; CELLS]);
        let mut mixed: Vec<u16> = Vec::new();
        // Cells between two thresholds hold one value; the cell a threshold lies in holds two or more, unless at its edge.
        let mut next = 0;
        for (value, threshold) in thresholds.iter().enumerate() {
            let cell = (threshold >> CELL_SHIFT) as usize;
            fill(&mut guide, next..cell, value);
            next = next.max(cell);
            if threshold & ((1 << CELL_SHIFT) - 1) != 0 && next == cell {
                fill(&mut guide, cell..cell + 1, thresholds.len() + 1 + mixed.len());
                mixed.push(index16(cell));
                next = cell + 1;
            }
        }
        fill(&mut guide, next..CELLS, thresholds.len());
        Self { first, thresholds, guide, mixed }
    }

    /// Draws `years` counts, at most a block's, and calls `layer(n)` for j = 0, 1, ... with the number of years that
    /// have more than j claims, while there are any.
    ///
    /// **Order**: one 16-bit draw a year, low half of a word first; then one 64-bit draw for each that met a mixed cell,
    /// by rising cell.
    pub(crate) fn draw(
        &self,
        random: &mut Generator,
        years: usize,
        tally: &mut Tally,
        mut layer: impl FnMut(&mut Generator, usize),
    ) {
        let values = self.thresholds.len() + 1;
        self.count(random, years.min(BLOCK), tally);
        for (place, cell) in self.mixed.iter().enumerate() {
            for _ in 0..tally.taken(values + place) {
                let uniform = (u64::from(*cell) << CELL_SHIFT) | (random.next_u64() >> (64 - CELL_SHIFT));
                tally.add(self.thresholds.partition_point(|t| *t <= uniform));
            }
        }
        let mut more = years.min(BLOCK);
        for _ in 0..self.first {
            layer(random, more);
        }
        for value in 0..values {
            more -= tally.taken(value).min(more);
            if more == 0 {
                continue;
            }
            layer(random, more);
        }
    }

    fn count(&self, random: &mut Generator, years: usize, tally: &mut Tally) {
        let slot = |half: u32| usize::from(self.guide[(half >> 4) as usize & (CELLS - 1)]) & (SLOTS - 1);
        let words = random.take(years.div_ceil(2));
        let (pairs, single) = words.split_at(years / 2);
        let (eights, rest) = pairs.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in eights {
            // Written out: a loop of eight is not unrolled for WebAssembly.
            macro_rules! both {
                ($word:ident) => {
                    tally.even[slot($word & 0xffff)] += 1;
                    tally.odd[slot($word >> 16)] += 1;
                };
            }
            both!(a);
            both!(b);
            both!(c);
            both!(d);
            both!(e);
            both!(f);
            both!(g);
            both!(h);
        }
        for word in rest {
            tally.even[slot(word & 0xffff)] += 1;
            tally.odd[slot(word >> 16)] += 1;
        }
        for word in single {
            tally.even[slot(word & 0xffff)] += 1;
        }
    }
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self { even: Box::new([0; SLOTS]), odd: Box::new([0; SLOTS]) }
    }

    fn add(&mut self, slot: usize) {
        self.even[slot & (SLOTS - 1)] += 1;
    }

    /// The count of a slot, which is set back to none.
    fn taken(&mut self, slot: usize) -> usize {
        let (even, odd) = (&mut self.even[slot & (SLOTS - 1)], &mut self.odd[slot & (SLOTS - 1)]);
        usize::from(core::mem::take(even)) + usize::from(core::mem::take(odd))
    }
}

fn fill(guide: &mut [u16; CELLS], cells: core::ops::Range<usize>, slot: usize) {
    if let Some(cells) = guide.get_mut(cells) {
        cells.fill(index16(slot));
    }
}

fn index16(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Probabilities relative to that of the mode, from the first that counts on; no exponential or factorial is taken.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a mean of at most 10,000"
)]
fn weights(mean: f64) -> (usize, Vec<f64>) {
    let mode = mean as usize;
    let mut below = Vec::new();
    let (mut weight, mut value) = (1.0, mode);
    while value > 0 {
        weight *= value as f64 / mean;
        if weight < NEGLIGIBLE {
            break;
        }
        below.push(weight);
        value -= 1;
    }
    let first = mode - below.len();
    below.reverse();
    let mut all = below;
    let (mut weight, mut value) = (1.0, mode);
    while weight >= NEGLIGIBLE {
        all.push(weight);
        value += 1;
        weight *= mean / value as f64;
    }
    (first, all)
}

/// Cumulative probabilities times 2^64; above the mode from the far end, where small sums keep their digits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a probability times 2^64 saturates, as meant"
)]
fn thresholds(weights: &[f64], first: usize, mean: f64) -> Vec<u64> {
    const WHOLE: f64 = 18_446_744_073_709_551_616.0;
    let mode = mean as usize - first;
    let total: f64 = weights.iter().sum();
    let mut found: Vec<u64> = Vec::with_capacity(weights.len());
    let mut sum = 0.0;
    for weight in weights.iter().take(mode) {
        sum += weight;
        found.push((sum / total * WHOLE) as u64);
    }
    let mut above = Vec::with_capacity(weights.len());
    sum = 0.0;
    for weight in weights.iter().skip(mode + 1).rev() {
        sum += weight;
        above.push(u64::MAX - (sum / total * WHOLE) as u64);
    }
    found.extend(above.into_iter().rev());
    found
}
