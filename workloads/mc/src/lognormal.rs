//! Lognormal amounts, capped: ziggurat normals carried in fixed point straight into the exponential.
//!
//! **Source**: G. Marsaglia, W. W. Tsang, "The ziggurat method for generating random variables", J. Stat. Softw. 5(8), 2000,
//! in the form of J. A. Doornik, 2005 (layer and position from separate bits); tail: G. Marsaglia, 1964.

use forge_sdk_guest::rng::Generator;

use crate::exponential::{FRACTION_BITS, biased, exp, ln, power_of_two};
use crate::tables::{DENSITIES, EDGES, INSIDE, TAIL_START};

/// Most amounts drawn at once.
pub(crate) const DRAWS_MAX: usize = 1024;
/// Amounts of one turn of the loop: short loops would pay mostly for the sandbox's fuel counter.
const TURN: usize = 8;
const LAYERS: usize = INSIDE.len();

/// Room for one draw.
pub(crate) struct Amounts {
    /// The amounts drawn; behind them, nothing that means anything.
    pub(crate) values: [f64; DRAWS_MAX],
    /// Points that may lie outside the curve: position, and index with layer.
    doubtful: [(u32, u32); DRAWS_MAX],
}

impl Amounts {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { values: [0.0; DRAWS_MAX], doubtful: [(0, 0); DRAWS_MAX] })
    }
}

/// `min(exp(mu + sigma Z), cap)`.
pub(crate) struct Lognormal {
    /// `mu / ln 2`, biased fixed point.
    centre: i64,
    /// `sigma / ln 2`.
    slope: f64,
    /// Bits of the cap; positive doubles are ordered like their bits.
    cap: u64,
    /// Per layer: width in units of `2^(shift - 48)` per 2^-31 of position in the low half, `INSIDE` in the high half.
    layers: [u64; LAYERS],
    shift: u32,
}

impl Lognormal {
    /// `mu` and `sigma` of the logarithm, and the cap.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width is made to fit 31 bits")]
    pub(crate) fn new(mu: f64, sigma: f64, cap: f64) -> Self {
        let slope = sigma * core::f64::consts::LOG2_E;
        let centre = biased(mu * core::f64::consts::LOG2_E);
        let [widest, ..] = EDGES;
        // Position (31 bits and sign) times width (at most 31 bits) fits 63 bits; the shift brings it to FRACTION_BITS.
        let mut shift = 0;
        let mut unit = (1_u64 << (FRACTION_BITS - 31)) as f64 * slope;
        while shift < 31 && unit * widest < f64::from(1 << 30) {
            unit *= 2.0;
            shift += 1;
        }
        let mut layers = [0; LAYERS];
        for (layer, (edge, inside)) in layers.iter_mut().zip(EDGES.iter().zip(INSIDE)) {
            *layer = (edge * unit + 0.5) as u64 | (u64::from(inside) << 32);
        }
        Self { centre, slope, cap: cap.to_bits(), layers, shift }
    }

    /// Draws `count` amounts, at most [`DRAWS_MAX`], to the front of `amounts`; what lies behind them is overwritten.
    ///
    /// **Order**: `count` rounded up to a multiple of [`TURN`] words of positions, then as many bytes of layers,
    /// then what rejected points need, in the order of their amounts.
    pub(crate) fn draw(&self, random: &mut Generator, count: usize, amounts: &mut Amounts) {
        let Amounts { values: out, doubtful } = amounts;
        let count = count.min(DRAWS_MAX);
        let turns = count.div_ceil(TURN);
        let found = self.draw_fast(random.take(turns * (TURN + TURN / 4)), turns, out, doubtful);
        for (position, place) in doubtful.iter().take(found) {
            let (index, layer) = ((place >> 8) as usize, place & 255);
            if index < count
                && let Some(amount) = out.get_mut(index)
            {
                let z = normal(random, position.cast_signed(), layer as usize);
                *amount = f64::from_bits(power_of_two(self.centre + biased(self.slope * z) - biased(0.0)).min(self.cap));
            }
        }
    }

    /// Every amount as if its point lay inside its layer's rectangle; lists those that may not. Without a branch.
    #[inline(always)]
    fn draw_fast(&self, words: &[u32], turns: usize, out: &mut [f64; DRAWS_MAX], doubtful: &mut [(u32, u32); DRAWS_MAX]) -> usize {
        let (positions, layers) = words.split_at(turns * TURN);
        let positions = positions.as_chunks::<TURN>().0;
        let layers = layers.as_chunks::<{ TURN / 4 }>().0;
        let mut found = 0;
        let mut index = 0;
        for ((amounts, positions), layers) in out.as_chunks_mut::<TURN>().0.iter_mut().zip(positions).zip(layers) {
            for lane in 0..TURN {
                let layer = (layers[lane / 4] >> (8 * (lane % 4))) & 255;
                let position = (positions[lane] | 1).cast_signed();
                let entry = self.layers[layer as usize];
                let width = (entry & 0xffff_ffff).cast_signed();
                let exponent = self.centre + ((i64::from(position) * width) >> self.shift);
                amounts[lane] = f64::from_bits(power_of_two(exponent).min(self.cap));
                doubtful[found & (DRAWS_MAX - 1)] = (positions[lane], (index << 8) | layer);
                found += usize::from(position.unsigned_abs() >= (entry >> 32) as u32);
                index += 1;
            }
        }
        found
    }
}

/// A standard normal from a point that may lie outside the curve: exact rejection, with fresh points as needed.
#[cold]
#[expect(clippy::cast_possible_truncation, reason = "a 64-bit draw is cut into a position and a layer")]
fn normal(random: &mut Generator, position: i32, layer: usize) -> f64 {
    const POSITION: f64 = 1.0 / (1_u64 << 31) as f64;
    let (mut position, mut layer) = (position | 1, layer & (LAYERS - 1));
    loop {
        let (edge, next) = (EDGES[layer], EDGES[layer + 1]);
        let x = f64::from(position) * POSITION * edge;
        if position.unsigned_abs() < INSIDE[layer] || x.abs() < next {
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
        position = ((word >> 32) as u32).cast_signed() | 1;
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
