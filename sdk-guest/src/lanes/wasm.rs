//! WebAssembly's own vectors.
#![expect(unsafe_code, reason = "loads and stores take raw pointers")]

use core::arch::wasm32::{
    f64x2_add, f64x2_mul, f64x2_pmax, f64x2_pmin, f64x2_splat, f64x2_sub, i8x16_bitmask, i8x16_eq, i8x16_shuffle,
    i32x4_bitmask, i32x4_gt, u8x16_splat, u8x16_sub_sat, u32x4, u32x4_add, u32x4_extract_lane, u32x4_shl, u32x4_shr,
    u32x4_shuffle, u32x4_splat, u64x2_add, u64x2_extmul_high_u32x4, u64x2_extmul_low_u32x4, u64x2_extract_lane,
    u64x2_shl, u64x2_shr, u64x2_splat, u64x2_sub, v128, v128_and, v128_load, v128_load64_lane, v128_load64_zero,
    v128_or, v128_store, v128_xor,
};

/// Four 32-bit lanes.
#[derive(Clone, Copy)]
pub struct U32x4(v128);

/// Two 64-bit lanes.
#[derive(Clone, Copy)]
pub struct U64x2(v128);

/// Two doubles.
#[derive(Clone, Copy)]
pub struct F64x2(v128);

impl U32x4 {
    /// These lanes.
    #[inline(always)]
    pub fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
        Self(u32x4(a, b, c, d))
    }

    /// Four equal lanes.
    #[inline(always)]
    pub fn splat(value: u32) -> Self {
        Self(u32x4_splat(value))
    }

    /// Lanes from memory.
    #[inline(always)]
    pub fn load(from: &[u32; 4]) -> Self {
        // SAFETY: `from` is 16 readable bytes, and Wasm loads need no alignment.
        Self(unsafe { v128_load(from.as_ptr().cast()) })
    }

    /// Lanes to memory.
    #[inline(always)]
    pub fn store(self, to: &mut [u32; 4]) {
        // SAFETY: `to` is 16 writable bytes, and Wasm stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
    }

    /// The lanes.
    #[inline(always)]
    pub fn to_array(self) -> [u32; 4] {
        let v = self.0;
        [u32x4_extract_lane::<0>(v), u32x4_extract_lane::<1>(v), u32x4_extract_lane::<2>(v), u32x4_extract_lane::<3>(v)]
    }

    /// Sums modulo 2^32.
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(u32x4_add(self.0, other.0))
    }

    /// Bits that differ.
    #[inline(always)]
    pub fn xor(self, other: Self) -> Self {
        Self(v128_xor(self.0, other.0))
    }

    /// Bits of both.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(v128_and(self.0, other.0))
    }

    /// Bits of either.
    #[inline(always)]
    pub fn or(self, other: Self) -> Self {
        Self(v128_or(self.0, other.0))
    }

    /// Each lane shifted left.
    #[inline(always)]
    pub fn shl<const BITS: u32>(self) -> Self {
        Self(u32x4_shl(self.0, BITS))
    }

    /// Each lane rotated left; by 16 and 8 a byte shuffle is one instruction where shifts are three.
    #[inline(always)]
    pub fn rotate<const BITS: u32>(self) -> Self {
        match BITS {
            16 => Self(i8x16_shuffle::<2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13>(self.0, self.0)),
            8 => Self(i8x16_shuffle::<3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14>(self.0, self.0)),
            _ => Self(v128_or(u32x4_shl(self.0, BITS), u32x4_shr(self.0, 32 - BITS))),
        }
    }

    /// All bits of a lane where it is greater than the other's, both read as signed; no bit elsewhere.
    #[inline(always)]
    pub fn greater(self, other: Self) -> Self {
        Self(i32x4_gt(self.0, other.0))
    }

    /// One bit for each lane, lowest first: its highest.
    #[inline(always)]
    pub fn tops(self) -> u32 {
        u32::from(i32x4_bitmask(self.0))
    }

    /// Products of lanes 0 and 1.
    #[inline(always)]
    pub fn multiply_low(self, other: Self) -> U64x2 {
        U64x2(u64x2_extmul_low_u32x4(self.0, other.0))
    }

    /// Products of lanes 2 and 3.
    #[inline(always)]
    pub fn multiply_high(self, other: Self) -> U64x2 {
        U64x2(u64x2_extmul_high_u32x4(self.0, other.0))
    }

    /// Lanes 0 and 1, each times 2^32.
    #[inline(always)]
    pub fn raised_low(self) -> U64x2 {
        U64x2(u32x4_shuffle::<0, 4, 1, 5>(u32x4_splat(0), self.0))
    }

    /// Lanes 2 and 3, each times 2^32.
    #[inline(always)]
    pub fn raised_high(self) -> U64x2 {
        U64x2(u32x4_shuffle::<2, 6, 3, 7>(u32x4_splat(0), self.0))
    }

    /// One bit for each of the 16 bytes, lowest first: whether it is at most `most`.
    #[inline(always)]
    pub fn bytes_at_most(self, most: u8) -> u32 {
        u32::from(i8x16_bitmask(i8x16_eq(u8x16_sub_sat(self.0, u8x16_splat(most)), u8x16_splat(0))))
    }

    /// Rows become columns.
    #[inline(always)]
    pub fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        let ab_low = u32x4_shuffle::<0, 4, 1, 5>(a.0, b.0);
        let ab_high = u32x4_shuffle::<2, 6, 3, 7>(a.0, b.0);
        let cd_low = u32x4_shuffle::<0, 4, 1, 5>(c.0, d.0);
        let cd_high = u32x4_shuffle::<2, 6, 3, 7>(c.0, d.0);
        [
            Self(u32x4_shuffle::<0, 1, 4, 5>(ab_low, cd_low)),
            Self(u32x4_shuffle::<2, 3, 6, 7>(ab_low, cd_low)),
            Self(u32x4_shuffle::<0, 1, 4, 5>(ab_high, cd_high)),
            Self(u32x4_shuffle::<2, 3, 6, 7>(ab_high, cd_high)),
        ]
    }
}

impl U64x2 {
    /// Two equal lanes.
    #[inline(always)]
    pub fn splat(value: u64) -> Self {
        Self(u64x2_splat(value))
    }

    /// Lanes from two places.
    #[inline(always)]
    pub fn gather(first: &u64, second: &u64) -> Self {
        // SAFETY: both references are 8 readable bytes.
        Self(unsafe { v128_load64_lane::<1>(v128_load64_zero(first), second) })
    }

    /// The lanes.
    #[inline(always)]
    pub fn to_array(self) -> [u64; 2] {
        [u64x2_extract_lane::<0>(self.0), u64x2_extract_lane::<1>(self.0)]
    }

    /// Sums modulo 2^64.
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(u64x2_add(self.0, other.0))
    }

    /// Differences modulo 2^64.
    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        Self(u64x2_sub(self.0, other.0))
    }

    /// Each lane shifted right.
    #[inline(always)]
    pub fn shr<const BITS: u32>(self) -> Self {
        Self(u64x2_shr(self.0, BITS))
    }

    /// Each lane shifted right by fewer than 64 bits.
    #[inline(always)]
    pub fn shr_by(self, bits: u32) -> Self {
        Self(u64x2_shr(self.0, bits))
    }

    /// Each lane shifted left by fewer than 64 bits.
    #[inline(always)]
    pub fn shl_by(self, bits: u32) -> Self {
        Self(u64x2_shl(self.0, bits))
    }

    /// The low 32 bits of each lane.
    #[inline(always)]
    pub fn low_words(self) -> Self {
        Self(v128_and(self.0, u64x2_splat(0xffff_ffff)))
    }

    /// The low words of these lanes, then of the other's.
    #[inline(always)]
    pub fn evens(self, other: Self) -> U32x4 {
        U32x4(u32x4_shuffle::<0, 2, 4, 6>(self.0, other.0))
    }

    /// The high words of these lanes, then of the other's.
    #[inline(always)]
    pub fn odds(self, other: Self) -> U32x4 {
        U32x4(u32x4_shuffle::<1, 3, 5, 7>(self.0, other.0))
    }

    /// The doubles with these bits.
    #[inline(always)]
    pub fn to_doubles(self) -> F64x2 {
        F64x2(self.0)
    }
}

impl F64x2 {
    /// Two equal doubles.
    #[inline(always)]
    pub fn splat(value: f64) -> Self {
        Self(f64x2_splat(value))
    }

    /// Doubles from memory.
    #[inline(always)]
    pub fn load(from: &[f64; 2]) -> Self {
        // SAFETY: `from` is 16 readable bytes, and Wasm loads need no alignment.
        Self(unsafe { v128_load(from.as_ptr().cast()) })
    }

    /// Doubles to memory.
    #[inline(always)]
    pub fn store(self, to: &mut [f64; 2]) {
        // SAFETY: `to` is 16 writable bytes, and Wasm stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
    }

    /// The doubles.
    #[inline(always)]
    pub fn to_array(self) -> [f64; 2] {
        let mut out = [0.0; 2];
        self.store(&mut out);
        out
    }

    /// Sums.
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self(f64x2_add(self.0, other.0))
    }

    /// Differences.
    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        Self(f64x2_sub(self.0, other.0))
    }

    /// Products.
    #[inline(always)]
    pub fn mul(self, other: Self) -> Self {
        Self(f64x2_mul(self.0, other.0))
    }

    /// The other's double where it is less, else this one: no canonicalisation is needed, as nothing is computed.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self(f64x2_pmin(self.0, other.0))
    }

    /// The other's double where it is greater, else this one.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(f64x2_pmax(self.0, other.0))
    }
}
