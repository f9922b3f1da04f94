//! Events of a given probability, one chance a year, as a list of the years that have one.

use forge_sdk_guest::rng::Generator;

use crate::model::BLOCK;

/// An event of probability above 0, at most 1.
pub(crate) struct Chance {
    /// `2^64` times the probability.
    threshold: u128,
    /// Its leading 16 bits: a draw below is a hit, above a miss, equal needs the next 48 bits.
    leading: u32,
}

impl Chance {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability is 0 to 1")]
    pub(crate) fn new(probability: f64) -> Self {
        let threshold = (probability * 18_446_744_073_709_551_616.0) as u128;
        Self { threshold, leading: ((threshold >> 48) as u32).min(0xffff) }
    }

    /// Lists the hits among `years` chances, at most a block's, by rising year.
    ///
    /// **Order**: one 16-bit draw a year, low half of a word first, the number of years rounded up to even;
    /// then one 64-bit draw for each undecided.
    pub(crate) fn draw<'a>(&self, random: &mut Generator, years: usize, hits: &'a mut [u32; BLOCK]) -> &'a [u32] {
        let years = years.min(BLOCK);
        let mut found = 0;
        let mut year = 0_u32;
        let words = random.take(years.div_ceil(2));
        let (eights, rest) = words.as_chunks::<8>();
        let mut note = |half: u32| {
            hits[found & (BLOCK - 1)] = (half << 16) | year;
            found += usize::from(half <= self.leading);
            year += 1;
        };
        for eight in eights {
            for word in eight {
                note(word & 0xffff);
                note(word >> 16);
            }
        }
        for word in rest {
            note(word & 0xffff);
            note(word >> 16);
        }
        let mut kept = 0;
        for place in 0..found.min(BLOCK) {
            let (half, year) = (hits[place] >> 16, hits[place] & 0xffff);
            hits[kept] = year;
            kept += usize::from((year as usize) < years && (half < self.leading || self.decides(random, half)));
        }
        &hits[..kept]
    }

    fn decides(&self, random: &mut Generator, half: u32) -> bool {
        u128::from((u64::from(half) << 48) | (random.next_u64() >> 16)) < self.threshold
    }
}
