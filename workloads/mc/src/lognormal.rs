//! Lognormal amounts, capped: ziggurat normals carried in fixed point straight into the exponential.
//!
//! **Source**: G. Marsaglia, W. W. Tsang, "The ziggurat method for generating random variables", J. Stat. Softw. 5(8), 2000,
//! in the form of J. A. Doornik, 2005 (layer and position from separate bits); tail: G. Marsaglia, 1964.

use forge_sdk_guest::lanes::{F64x2, U32x4, U64x2};
use forge_sdk_guest::rng::Generator;

use crate::exponential::{FRACTION_BITS, biased, exp, ln, power_of_two, powers_of_two};
use crate::tables::{DENSITIES, EDGES, INSIDE, TAIL_START};

/// Most amounts drawn at once.
pub(crate) const DRAWS_MAX: usize = 1024;
/// Amounts of one turn of the loop: short loops would pay mostly for the sandbox's fuel counter.
const TURN: usize = 8;
const LAYERS: usize = INSIDE.len();
/// By how much a product of position and width may be shifted; the first fits a sigma of 20. The more, the finer a small
/// sigma's widths; a choice of few lets each be a constant of its own loop.
const SHIFTS: [u32; 3] = [13, 21, 29];

/// Room for one draw.
pub(crate) struct Amounts {
    /// The amounts drawn; behind them, nothing that means anything.
    pub(crate) values: [f64; DRAWS_MAX],
    /// Points that may lie outside the curve.
    doubtful: [Doubt; DRAWS_MAX],
}

impl Amounts {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { values: [0.0; DRAWS_MAX], doubtful: [Doubt::default(); DRAWS_MAX] })
    }
}

/// `min(exp(mu + sigma Z), cap)`.
///
/// A point of the ziggurat is a layer (8 bits) and a position (32 bits, made odd and read from -2^31: symmetric about 0).
pub(crate) struct Lognormal {
    /// `mu / ln 2`, biased fixed point.
    centre: u64,
    /// `mu / ln 2` and `sigma / ln 2`.
    middle: f64,
    slope: f64,
    cap: f64,
    /// Per layer: in the low half its width, in units of `2^(31 - FRACTION_BITS - shift)`; in the high half [`INSIDE`].
    layers: [u64; LAYERS],
    /// One of [`SHIFTS`].
    shift: u32,
}

impl Lognormal {
    /// `mu` and `sigma` of the logarithm, and the cap.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width is made to fit 31 bits")]
    pub(crate) fn new(mu: f64, sigma: f64, cap: f64) -> Self {
        let middle = mu * core::f64::consts::LOG2_E;
        let slope = sigma * core::f64::consts::LOG2_E;
        let [widest, ..] = EDGES;
        let unit = |shift: u32| (1_u64 << (FRACTION_BITS - 31 + shift)) as f64 * slope;
        let fits = |shift: &u32| unit(*shift) * widest < f64::from(1 << 30) * 2.0;
        let shift = SHIFTS.into_iter().rfind(fits).unwrap_or(SHIFTS[0]);
        let unit = unit(shift);
        let mut layers = [0; LAYERS];
        for (layer, (edge, inside)) in layers.iter_mut().zip(EDGES.iter().zip(INSIDE)) {
            // The top layer has no inside; 1 keeps the comparison in `four` from wrapping, and no odd number is below it.
            *layer = (edge * unit + 0.5) as u64 | (u64::from(inside.max(1)) << 32);
        }
        Self { centre: biased(middle), middle, slope, cap, layers, shift }
    }

    /// Draws `count` amounts, at most [`DRAWS_MAX`], to the front of `amounts`; what lies behind them is overwritten.
    ///
    /// **Order**: `count` rounded up to a multiple of [`TURN`] words of positions, then as many bytes of layers,
    /// then what rejected points need, in the order of their amounts.
    pub(crate) fn draw(&self, random: &mut Generator, count: usize, amounts: &mut Amounts) {
        let Amounts { values, doubtful } = amounts;
        let count = count.min(DRAWS_MAX);
        let turns = count.div_ceil(TURN);
        let words = random.take(turns * (TURN + TURN / 4));
        let found = match self.shift {
            13 => self.draw_fast::<13>(words, turns, values, doubtful),
            21 => self.draw_fast::<21>(words, turns, values, doubtful),
            _ => self.draw_fast::<29>(words, turns, values, doubtful),
        };
        for doubt in doubtful.iter().take(found).filter(|doubt| (doubt.index as usize) < count) {
            let z = normal(random, doubt.position, doubt.layer as usize);
            values[doubt.index as usize & (DRAWS_MAX - 1)] =
                power_of_two(biased(self.middle + self.slope * z)).min(self.cap);
        }
    }

    /// Every amount as if its point lay inside its layer's rectangle; lists those that may not.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "an index is below DRAWS_MAX")]
    fn draw_fast<const SHIFT: u32>(
        &self,
        words: &[u32],
        turns: usize,
        values: &mut [f64; DRAWS_MAX],
        doubtful: &mut [Doubt; DRAWS_MAX],
    ) -> usize {
        let (positions, layers) = words.split_at(turns * TURN);
        let positions = positions.as_chunks::<4>().0.as_chunks::<2>().0;
        let layers = layers.as_chunks::<2>().0;
        let values = values.as_chunks_mut::<2>().0.as_chunks_mut::<4>().0;
        let mut found = 0;
        for (turn, (([a, b, c, d], [p, q]), [k, l])) in values.iter_mut().zip(positions).zip(layers).enumerate() {
            let first = self.four::<SHIFT>(p, *k, a, b);
            let second = self.four::<SHIFT>(q, *l, c, d);
            let mut outside = first | (second << 4);
            while outside != 0 {
                let lane = outside.trailing_zeros();
                let (position, layer) = if lane < 4 { (p[lane as usize & 3], *k) } else { (q[lane as usize & 3], *l) };
                let layer = (layer >> (8 * (lane & 3))) & 255;
                doubtful[found & (DRAWS_MAX - 1)] = Doubt { position, layer, index: (turn * TURN) as u32 + lane };
                found += 1;
                outside &= outside - 1;
            }
        }
        found
    }

    /// Four amounts, and a bit for each point that may lie outside the curve.
    #[inline(always)]
    fn four<const SHIFT: u32>(
        &self,
        positions: &[u32; 4],
        layers: u32,
        low: &mut [f64; 2],
        high: &mut [f64; 2],
    ) -> u32 {
        let layer = |shift: u32| &self.layers[(layers >> shift) as usize & (LAYERS - 1)];
        let (first, second) = (U64x2::gather(layer(0), layer(8)), U64x2::gather(layer(16), layer(24)));
        let positions = U32x4::load(positions).or(U32x4::splat(1));

        // Not -inside <= position < inside, as one comparison of signed numbers.
        let inside = first.odds(second);
        let outside = positions.add(inside).greater(inside.add(inside).add(U32x4::splat((1 << 31) - 1)));

        // (position - 2^31) * width, brought to a fixed-point exponent.
        let (widths, centre) = (first.evens(second), U64x2::splat(self.centre));
        let exponents = |products: U64x2, pair: U64x2| {
            let half = pair.low_words().shl_by(31 - SHIFT);
            products.shr::<SHIFT>().add(centre.sub(half))
        };
        let (left, right) = powers_of_two(
            exponents(positions.multiply_low(widths), first),
            exponents(positions.multiply_high(widths), second),
        );
        let cap = F64x2::splat(self.cap);
        left.min(cap).store(low);
        right.min(cap).store(high);
        outside.tops()
    }
}

/// A point that may lie outside the curve.
#[derive(Clone, Copy, Default)]
struct Doubt {
    position: u32,
    layer: u32,
    index: u32,
}

/// A position as a signed, odd number.
fn signed(position: u32) -> i32 {
    ((position | 1) ^ (1 << 31)).cast_signed()
}

/// Whether a position lies under the next layer, and so under the curve.
fn is_inside(position: i32, layer: usize) -> bool {
    position.unsigned_abs() < INSIDE[layer & (LAYERS - 1)]
}

/// A standard normal from a point that may lie outside the curve: exact rejection, with fresh points as needed.
#[cold]
fn normal(random: &mut Generator, position: u32, layer: usize) -> f64 {
    const POSITION: f64 = 1.0 / (1_u64 << 31) as f64;
    let (mut position, mut layer) = (signed(position), layer & (LAYERS - 1));
    loop {
        let (edge, next) = (EDGES[layer], EDGES[layer + 1]);
        let x = f64::from(position) * POSITION * edge;
        if is_inside(position, layer) || x.abs() < next {
            return x;
        }
        if layer == 0 {
            let tail = tail(random);
            return if position < 0 { -tail } else { tail };
        }
        let (low, high) = (DENSITIES[layer], DENSITIES[layer + 1]);
        if low + random.next_open() * (high - low) < exp(-0.5 * x * x) {
            return x;
        }
        let word = random.next_u64();
        position = signed((word >> 32) as u32);
        layer = (word & 255) as usize;
    }
}

/// A normal beyond [`TAIL_START`].
fn tail(random: &mut Generator) -> f64 {
    loop {
        let excess = -ln(random.next_open()) / TAIL_START;
        let height = -ln(random.next_open());
        if 2.0 * height > excess * excess {
            return TAIL_START + excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points at and around every layer's borders: what `four` lets pass lies inside.
    #[test]
    fn no_point_outside_its_layer_passes() {
        let law = Lognormal::new(0.0, 1.0, 1e18);
        for (layer, inside) in (0_u32..).zip(INSIDE) {
            let middle = 1_u32 << 31;
            let near = [0, 1, 2, 3].map(|by| [middle + inside + by, (middle + inside).wrapping_sub(by + 1)]);
            let far = [0, 1, 2, 3].map(|by| [middle - inside + by, (middle - inside).wrapping_sub(by + 1)]);
            let ends = [0, 1, middle - 1, middle, middle + 1, u32::MAX, u32::MAX - 2, 77];
            let all: Vec<u32> = near.into_iter().chain(far).flatten().chain(ends).collect();
            for positions in all.as_chunks::<4>().0 {
                let outside = law.four::<13>(positions, layer * 0x0101_0101, &mut [0.0; 2], &mut [0.0; 2]);
                for (lane, position) in positions.iter().enumerate() {
                    let passes = outside >> lane & 1 == 0;
                    let z = f64::from(signed(*position)) / (1_u64 << 31) as f64 * EDGES[layer as usize];
                    let next = EDGES[layer as usize + 1].max(1e-9);
                    assert!(!passes || z.abs() <= next, "layer {layer} position {position}");
                    assert!(passes || z.abs() > next * (1.0 - 1e-8) - 1e-8, "layer {layer} position {position}");
                }
            }
        }
    }

    #[test]
    fn amounts_equal_their_points() {
        for (mu, sigma) in [(6.0, 1.0), (-3.0, 0.01), (0.5, 1e-5), (10.0, 20.0)] {
            let law = Lognormal::new(mu, sigma, 1e300);
            for step in 0..40_000_u32 {
                let (position, layer) = (step.wrapping_mul(2_654_435_769), step % 256);
                let mut found = [0.0; 2];
                match law.shift {
                    13 => law.four::<13>(&[position; 4], layer * 0x0101_0101, &mut found, &mut [0.0; 2]),
                    21 => law.four::<21>(&[position; 4], layer * 0x0101_0101, &mut found, &mut [0.0; 2]),
                    _ => law.four::<29>(&[position; 4], layer * 0x0101_0101, &mut found, &mut [0.0; 2]),
                };
                let z = f64::from(signed(position)) / (1_u64 << 31) as f64 * EDGES[layer as usize];
                let truth = (mu + sigma * z).exp();
                // Half a unit of the width's last place, and the exponential's own error.
                assert!((found[0] / truth - 1.0).abs() < 6e-8, "{mu} {sigma} {position} {layer}: {} {truth}", found[0]);
            }
        }
    }
}
