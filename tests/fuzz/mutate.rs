//! Inputs from seeds and a number: always the same ones.
//!
//! Structure-aware in three ways: it starts from real inputs, it moves whole tokens (words, numbers and strings of
//! text; runs of bytes of binary forms) from one seed to another, and it puts in the numbers that encodings stumble
//! over, in each of their spellings.

/// Draws mutated inputs.
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    tokens: Vec<Vec<u8>>,
    state: u64,
    longest: usize,
}

/// Numbers at the edges, as text, LEB128 and fixed bytes.
const EDGES: [&[u8]; 26] = [
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9007199254740993",
    b"4294967296",
    b"-0.0",
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\ud800",
    b"\0",
    b"\x7f",
    b"\x80\x00",
    b"\xff\x01",
    b"\xff\xff\x03",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x00\x00\x00\x00\x00\x00\xf0\x7f",
    b"\x01\x00\x00\x00\x00\x00\xf8\x7f",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xc3\xa9",
];

impl Mutator {
    /// A mutator of these seeds.
    #[must_use]
    pub fn new(seeds: Vec<Vec<u8>>, number: u64, longest: usize) -> Self {
        let mut tokens: Vec<Vec<u8>> = EDGES.iter().map(|edge| edge.to_vec()).collect();
        for seed in &seeds {
            let words = seed.split(|byte| b",:{}[]".contains(byte));
            tokens.extend(words.filter(|word| (1..64).contains(&word.len())).take(400).map(<[u8]>::to_vec));
        }
        tokens.sort_unstable();
        tokens.dedup();
        Self { seeds, tokens, state: number, longest }
    }

    /// The next number (SplitMix64).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        let mut input = self.seeds[at].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(self.longest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let kind = self.below(9);
        match kind {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = self.draw() as u8,
            3 => input.truncate(at),
            4 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end.max(at));
            }
            5 => {
                let token = self.token();
                input.splice(at..at, token);
            }
            6 => {
                let token = self.token();
                let end = (at + token.len()).min(input.len());
                input.splice(at..end, token);
            }
            7 => self.swap_token(input, at),
            _ => {
                let other = self.below(self.seeds.len());
                let other = self.seeds[other].clone();
                let from = self.below(other.len() + 1);
                let until = (from + self.below(64)).min(other.len());
                input.splice(at..at, other[from..until].iter().copied());
            }
        }
    }

    fn token(&mut self) -> Vec<u8> {
        let at = self.below(self.tokens.len());
        self.tokens[at].clone()
    }

    /// Replaces the word around `at`: a JSON value by another, say.
    fn swap_token(&mut self, input: &mut Vec<u8>, at: usize) {
        let ends = |byte: &u8| b",:{}[]".contains(byte);
        let start = input[..at].iter().rposition(ends).map_or(0, |found| found + 1);
        let end = input[at..].iter().position(ends).map_or(input.len(), |found| at + found);
        let token = self.token();
        input.splice(start..end, token);
    }
}
