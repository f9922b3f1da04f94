//! Plain arrays.

/// Four 32-bit lanes.
#[derive(Clone, Copy)]
pub struct U32x4([u32; 4]);

/// Two 64-bit lanes.
#[derive(Clone, Copy)]
pub struct U64x2([u64; 2]);

/// Two doubles.
#[derive(Clone, Copy)]
pub struct F64x2([f64; 2]);

fn both<T: Copy, R>([a, b, c, d]: [T; 4], [e, f, g, h]: [T; 4], op: impl Fn(T, T) -> R) -> [R; 4] {
    [op(a, e), op(b, f), op(c, g), op(d, h)]
}

fn pairs<T: Copy, R>([a, b]: [T; 2], [c, d]: [T; 2], op: impl Fn(T, T) -> R) -> [R; 2] {
    [op(a, c), op(b, d)]
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn low(value: u64) -> u32 {
    value as u32
}

#[allow(missing_docs, reason = "as in `wasm`")]
impl U32x4 {
    pub fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
        Self([a, b, c, d])
    }

    pub fn splat(value: u32) -> Self {
        Self([value; 4])
    }

    pub fn load(from: &[u32; 4]) -> Self {
        Self(*from)
    }

    pub fn store(self, to: &mut [u32; 4]) {
        *to = self.0;
    }

    pub fn to_array(self) -> [u32; 4] {
        self.0
    }

    pub fn add(self, other: Self) -> Self {
        Self(both(self.0, other.0, u32::wrapping_add))
    }

    pub fn xor(self, other: Self) -> Self {
        Self(both(self.0, other.0, |a, b| a ^ b))
    }

    pub fn and(self, other: Self) -> Self {
        Self(both(self.0, other.0, |a, b| a & b))
    }

    pub fn or(self, other: Self) -> Self {
        Self(both(self.0, other.0, |a, b| a | b))
    }

    pub fn shl<const BITS: u32>(self) -> Self {
        Self(self.0.map(|lane| lane << BITS))
    }

    pub fn rotate<const BITS: u32>(self) -> Self {
        Self(self.0.map(|lane| lane.rotate_left(BITS)))
    }

    pub fn greater(self, other: Self) -> Self {
        Self(both(self.0, other.0, |a, b| if a.cast_signed() > b.cast_signed() { u32::MAX } else { 0 }))
    }

    pub fn tops(self) -> u32 {
        (0..).zip(self.0).map(|(place, lane)| (lane >> 31) << place).sum()
    }

    pub fn multiply_low(self, other: Self) -> U64x2 {
        let ([a, b, ..], [c, d, ..]) = (self.0, other.0);
        U64x2([u64::from(a) * u64::from(c), u64::from(b) * u64::from(d)])
    }

    pub fn multiply_high(self, other: Self) -> U64x2 {
        let ([.., a, b], [.., c, d]) = (self.0, other.0);
        U64x2([u64::from(a) * u64::from(c), u64::from(b) * u64::from(d)])
    }

    pub fn raised_low(self) -> U64x2 {
        let [a, b, ..] = self.0;
        U64x2([u64::from(a) << 32, u64::from(b) << 32])
    }

    pub fn raised_high(self) -> U64x2 {
        let [.., a, b] = self.0;
        U64x2([u64::from(a) << 32, u64::from(b) << 32])
    }

    pub fn bytes_at_most(self, most: u8) -> u32 {
        let bytes = self.0.into_iter().flat_map(u32::to_le_bytes);
        (0..).zip(bytes).filter(|(_, byte)| *byte <= most).map(|(place, _)| 1 << place).sum()
    }

    pub fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
        let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.0, d.0);
        [Self([a0, b0, c0, d0]), Self([a1, b1, c1, d1]), Self([a2, b2, c2, d2]), Self([a3, b3, c3, d3])]
    }
}

#[allow(missing_docs, reason = "as in `wasm`")]
impl U64x2 {
    pub fn splat(value: u64) -> Self {
        Self([value; 2])
    }

    pub fn gather(first: &u64, second: &u64) -> Self {
        Self([*first, *second])
    }

    pub fn to_array(self) -> [u64; 2] {
        self.0
    }

    pub fn add(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, u64::wrapping_add))
    }

    pub fn sub(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, u64::wrapping_sub))
    }

    pub fn shr<const BITS: u32>(self) -> Self {
        Self(self.0.map(|lane| lane >> BITS))
    }

    pub fn shr_by(self, bits: u32) -> Self {
        Self(self.0.map(|lane| lane >> bits))
    }

    pub fn shl_by(self, bits: u32) -> Self {
        Self(self.0.map(|lane| lane << bits))
    }

    pub fn low_words(self) -> Self {
        Self(self.0.map(|lane| lane & 0xffff_ffff))
    }

    pub fn evens(self, other: Self) -> U32x4 {
        let ([a, b], [c, d]) = (self.0, other.0);
        U32x4([low(a), low(b), low(c), low(d)])
    }

    pub fn odds(self, other: Self) -> U32x4 {
        self.shr::<32>().evens(other.shr::<32>())
    }

    pub fn to_doubles(self) -> F64x2 {
        F64x2(self.0.map(f64::from_bits))
    }
}

#[allow(missing_docs, reason = "as in `wasm`")]
impl F64x2 {
    pub fn splat(value: f64) -> Self {
        Self([value; 2])
    }

    pub fn load(from: &[f64; 2]) -> Self {
        Self(*from)
    }

    pub fn store(self, to: &mut [f64; 2]) {
        *to = self.0;
    }

    pub fn to_array(self) -> [f64; 2] {
        self.0
    }

    pub fn add(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| a + b))
    }

    pub fn sub(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| a - b))
    }

    pub fn mul(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| a * b))
    }

    pub fn min(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| if b < a { b } else { a }))
    }

    pub fn max(self, other: Self) -> Self {
        Self(pairs(self.0, other.0, |a, b| if a < b { b } else { a }))
    }
}
