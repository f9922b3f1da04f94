//! Events of a given probability, one chance a year, as a list of the years that have one.

use forge_sdk_guest::lanes::U32x4;
use forge_sdk_guest::rng::Generator;

use crate::model::BLOCK;

/// Chances of one turn of the loop.
const TURN: usize = 16;

/// An event of probability above 0, at most 1.
pub(crate) struct Chance {
    /// `2^64` times the probability.
    threshold: u128,
    /// Its leading 8 bits: a draw below is a hit, above a miss, equal needs the next 56 bits.
    leading: u8,
}

impl Chance {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability is 0 to 1")]
    pub(crate) fn new(probability: f64) -> Self {
        let threshold = (probability * 18_446_744_073_709_551_616.0) as u128;
        Self { threshold, leading: (threshold >> 56).min(0xff) as u8 }
    }

    /// Lists the hits among `years` chances, at most a block's, by rising year.
    ///
    /// **Order**: one 8-bit draw a year, low byte of a word first, the number of years rounded up to a multiple of
    /// [`TURN`]; then one 64-bit draw for each year that is undecided.
    pub(crate) fn draw<'a>(&self, random: &mut Generator, years: usize, hits: &'a mut [u32; BLOCK]) -> &'a [u32] {
        let years = years.min(BLOCK);
        let mut found = 0;
        let words = random.take(years.div_ceil(TURN) * TURN / 4).as_chunks::<4>().0;
        for (first, four) in (0_u32..).step_by(TURN).zip(words) {
            let mut candidates = U32x4::load(four).bytes_at_most(self.leading);
            while candidates != 0 {
                let place = candidates.trailing_zeros();
                let byte = (four[(place as usize / 4) & 3] >> (8 * (place % 4))) & 255;
                hits[found & (BLOCK - 1)] = (byte << 16) | (first + place);
                found += 1;
                candidates &= candidates - 1;
            }
        }
        let mut kept = 0;
        for place in 0..found.min(BLOCK) {
            let (byte, year) = (hits[place] >> 16, hits[place] & 0xffff);
            hits[kept] = year;
            kept +=
                usize::from((year as usize) < years && (byte < u32::from(self.leading) || self.decides(random, byte)));
        }
        &hits[..kept]
    }

    #[cold]
    fn decides(&self, random: &mut Generator, byte: u32) -> bool {
        u128::from((u64::from(byte) << 56) | (random.next_u64() >> 8)) < self.threshold
    }
}
