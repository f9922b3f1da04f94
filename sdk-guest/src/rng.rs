//! The unit generator: ChaCha8, word for word equal to `rand_chacha::ChaCha8Rng` with `set_stream(unit)`.
//!
//! Source: D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008: 64-bit block counter, 64-bit stream identifier.

use crate::lanes::U32x4;

/// Words that are made at once: eight ChaCha blocks.
pub const GROUP_WORDS: usize = 128;
/// Groups kept ready.
const GROUPS: usize = 16;
/// Largest request of [`Generator::take`], words.
pub const TAKE_WORDS_MAX: usize = GROUP_WORDS * (GROUPS - 1);
const BUFFER_WORDS: usize = GROUP_WORDS * GROUPS;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// One unit's stream of random words, in order.
pub struct Generator {
    key: [u32; 8],
    stream: u64,
    /// Index of the next block to make.
    block: u64,
    words: Box<[u32; BUFFER_WORDS]>,
    /// `words[at..end]` are made and not yet taken.
    at: usize,
    end: usize,
}

impl Generator {
    /// The generator of one unit.
    #[must_use]
    pub fn new(key: &[u8; 32], stream: u64) -> Self {
        let mut words = [0_u32; 8];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { key: words, stream, block: 0, words: Box::new([0; BUFFER_WORDS]), at: 0, end: 0 }
    }

    /// The next `count` words of the stream; at most [`TAKE_WORDS_MAX`], more are not given.
    #[inline]
    pub fn take(&mut self, count: usize) -> &[u32] {
        let count = count.min(TAKE_WORDS_MAX);
        if self.end - self.at < count {
            self.refill();
        }
        let from = self.at;
        self.at = from + count;
        self.words.get(from..from + count).unwrap_or_default()
    }

    /// The next word.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// The next two words, low word first, as `rand_core` joins them.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        match self.take(2) {
            [low, high] => u64::from(*low) | (u64::from(*high) << 32),
            _ => 0,
        }
    }

    /// Uniform on the open unit interval: the middle of one of 2^52 equal cells, never 0 and never 1.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "52 bits fit a double exactly")]
    pub fn next_open(&mut self) -> f64 {
        const CELL: f64 = 1.0 / (1_u64 << 53) as f64;
        ((self.next_u64() >> 12) as f64) * (2.0 * CELL) + CELL
    }

    /// Moves what is left to the front and fills the rest with whole groups.
    #[inline(never)]
    fn refill(&mut self) {
        self.words.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        let free = self.words.get_mut(self.end..).unwrap_or_default();
        for group in free.as_chunks_mut::<GROUP_WORDS>().0 {
            eight_blocks(&self.key, self.stream, self.block, group);
            self.block = self.block.wrapping_add(8);
            self.end += GROUP_WORDS;
        }
    }
}

/// Four blocks side by side: word `i` of each in `self.0[i]`.
#[derive(Clone, Copy)]
struct Blocks([U32x4; 16]);

impl Blocks {
    /// The input of blocks `block .. block + 4`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 64-bit counters are meant")]
    fn new(key: &[u32; 8], stream: u64, block: u64) -> Self {
        let [c0, c1, c2, c3] = CONSTANTS.map(U32x4::splat);
        let [k0, k1, k2, k3, k4, k5, k6, k7] = key.map(U32x4::splat);
        let counter = [block, block.wrapping_add(1), block.wrapping_add(2), block.wrapping_add(3)];
        let [l0, l1, l2, l3] = counter.map(|n| n as u32);
        let [h0, h1, h2, h3] = counter.map(|n| (n >> 32) as u32);
        let (n0, n1) = (U32x4::new(l0, l1, l2, l3), U32x4::new(h0, h1, h2, h3));
        let (s0, s1) = (U32x4::splat(stream as u32), U32x4::splat((stream >> 32) as u32));
        Self([c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, s0, s1])
    }

    /// A column round and a diagonal round.
    #[inline(always)]
    #[expect(clippy::many_single_char_names, reason = "the words of the ChaCha state")]
    fn double_round(self) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        let [a, e, i, m] = quarter(a, e, i, m);
        let [b, f, j, n] = quarter(b, f, j, n);
        let [c, g, k, o] = quarter(c, g, k, o);
        let [d, h, l, p] = quarter(d, h, l, p);
        let [a, f, k, p] = quarter(a, f, k, p);
        let [b, g, l, m] = quarter(b, g, l, m);
        let [c, h, i, n] = quarter(c, h, i, n);
        let [d, e, j, o] = quarter(d, e, j, o);
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// Adds the input and writes the blocks one after the other.
    #[inline(always)]
    fn finish(self, input: Self, out: &mut [u32; 64]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        let [q, r, s, t, u, v, w, x, y, z, aa, bb, cc, dd, ee, ff] = input.0;
        write::<0>([a.add(q), b.add(r), c.add(s), d.add(t)], out);
        write::<1>([e.add(u), f.add(v), g.add(w), h.add(x)], out);
        write::<2>([i.add(y), j.add(z), k.add(aa), l.add(bb)], out);
        write::<3>([m.add(cc), n.add(dd), o.add(ee), p.add(ff)], out);
    }
}

/// Writes words `4 ROW .. 4 ROW + 4` of four blocks.
#[inline(always)]
fn write<const ROW: usize>(words: [U32x4; 4], out: &mut [u32; 64]) {
    let [first, second, third, fourth] = U32x4::transpose(words);
    if let [.., to] = &mut out.as_chunks_mut::<4>().0[..=ROW] {
        first.store(to);
    }
    if let [.., to] = &mut out.as_chunks_mut::<4>().0[..=ROW + 4] {
        second.store(to);
    }
    if let [.., to] = &mut out.as_chunks_mut::<4>().0[..=ROW + 8] {
        third.store(to);
    }
    if let [.., to] = &mut out.as_chunks_mut::<4>().0[..=ROW + 12] {
        fourth.store(to);
    }
}

#[inline(always)]
fn quarter(a: U32x4, b: U32x4, c: U32x4, d: U32x4) -> [U32x4; 4] {
    let a = a.add(b);
    let d = d.xor(a).rotate::<16>();
    let c = c.add(d);
    let b = b.xor(c).rotate::<12>();
    let a = a.add(b);
    let d = d.xor(a).rotate::<8>();
    let c = c.add(d);
    let b = b.xor(c).rotate::<7>();
    [a, b, c, d]
}

/// Blocks `block .. block + 8`, written in stream order.
///
/// Two sets of four take turns, so that one's additions fill the time the other's rotations take. Written out: a loop
/// would carry sixteen vectors over its edge, and there are sixteen registers.
#[inline(always)]
fn eight_blocks(key: &[u32; 8], stream: u64, block: u64, out: &mut [u32; GROUP_WORDS]) {
    let inputs = [Blocks::new(key, stream, block), Blocks::new(key, stream, block.wrapping_add(4))];
    let [mut x, mut y] = inputs;
    x = x.double_round();
    y = y.double_round();
    x = x.double_round();
    y = y.double_round();
    x = x.double_round();
    y = y.double_round();
    x = x.double_round();
    y = y.double_round();
    if let [first, second] = out.as_chunks_mut::<64>().0 {
        x.finish(inputs[0], first);
        y.finish(inputs[1], second);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn key(salt: u8) -> [u8; 32] {
        core::array::from_fn(|i| u8::try_from(i).unwrap_or(0).wrapping_mul(37) ^ salt)
    }

    #[test]
    fn equals_rand_chacha_word_for_word() {
        for (salt, stream) in [(0, 0), (1, 1), (7, 65_535), (200, u64::MAX), (9, 1 << 32)] {
            let mut theirs = ChaCha8Rng::from_seed(key(salt));
            theirs.set_stream(stream);
            let mut ours = Generator::new(&key(salt), stream);
            for step in 0..20_000 {
                assert_eq!(ours.next_u32(), theirs.next_u32(), "salt {salt} stream {stream} word {step}");
            }
            assert_eq!(ours.next_u64(), theirs.next_u64());
        }
    }

    #[test]
    fn any_cut_into_requests_gives_the_same_stream() {
        let mut theirs = ChaCha8Rng::from_seed(key(3));
        theirs.set_stream(11);
        let mut ours = Generator::new(&key(3), 11);
        let mut size = 1;
        for _ in 0..500 {
            for word in ours.take(size) {
                assert_eq!(*word, theirs.next_u32());
            }
            size = (size * 7 + 3) % (TAKE_WORDS_MAX + 1);
        }
        assert_eq!(ours.take(usize::MAX).len(), TAKE_WORDS_MAX);
    }

    #[test]
    fn the_counter_carries_into_its_high_word() {
        let mut theirs = ChaCha8Rng::from_seed(key(5));
        theirs.set_word_pos(((1_u128 << 32) - 2) * 16);
        let mut ours = Generator::new(&key(5), 0);
        ours.block = (1 << 32) - 2;
        for _ in 0..128 {
            assert_eq!(ours.next_u32(), theirs.next_u32());
        }
    }

    #[test]
    fn open_uniform_never_touches_its_ends() {
        let mut ours = Generator::new(&key(6), 0);
        for _ in 0..100_000 {
            let u = ours.next_open();
            assert!(u > 0.0 && u < 1.0);
        }
    }
}
