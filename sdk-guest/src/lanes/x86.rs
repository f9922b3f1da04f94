//! SSE2, which is part of every x86-64.
#![expect(unsafe_code, reason = "the compiler asks for it although SSE2 is part of every x86-64")]
// SAFETY of every block below: SSE2 exists, and loads and stores are the unaligned ones on references of their size.

use core::arch::x86_64::{
    __m128d, __m128i, _mm_add_epi32, _mm_add_epi64, _mm_add_pd, _mm_and_si128, _mm_castpd_si128, _mm_castps_si128,
    _mm_castsi128_pd, _mm_castsi128_ps, _mm_cmpeq_epi8, _mm_cmpgt_epi32, _mm_cvtsi32_si128, _mm_loadh_pd,
    _mm_loadl_epi64, _mm_loadu_pd, _mm_loadu_si128, _mm_max_pd, _mm_min_pd, _mm_movemask_epi8, _mm_movemask_ps,
    _mm_mul_epu32, _mm_mul_pd, _mm_or_si128, _mm_set_epi32, _mm_set1_epi8, _mm_set1_epi32, _mm_set1_epi64x,
    _mm_set1_pd, _mm_setzero_si128, _mm_shuffle_ps, _mm_sll_epi64, _mm_slli_epi32, _mm_srl_epi64, _mm_srli_epi32,
    _mm_storeu_pd, _mm_storeu_si128, _mm_sub_epi64, _mm_sub_pd, _mm_subs_epu8, _mm_unpackhi_epi32, _mm_unpackhi_epi64,
    _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128,
};

/// Four 32-bit lanes.
#[derive(Clone, Copy)]
pub struct U32x4(__m128i);

/// Two 64-bit lanes.
#[derive(Clone, Copy)]
pub struct U64x2(__m128i);

/// Two doubles.
#[derive(Clone, Copy)]
pub struct F64x2(__m128d);

#[expect(missing_docs, reason = "as in `wasm`")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once at the top")]
impl U32x4 {
    #[inline(always)]
    pub fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
        unsafe { Self(_mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())) }
    }

    #[inline(always)]
    pub fn splat(value: u32) -> Self {
        unsafe { Self(_mm_set1_epi32(value.cast_signed())) }
    }

    #[inline(always)]
    pub fn load(from: &[u32; 4]) -> Self {
        unsafe { Self(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    pub fn store(self, to: &mut [u32; 4]) {
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    pub fn to_array(self) -> [u32; 4] {
        let mut out = [0; 4];
        self.store(&mut out);
        out
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        unsafe { Self(_mm_add_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn xor(self, other: Self) -> Self {
        unsafe { Self(_mm_xor_si128(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        unsafe { Self(_mm_and_si128(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn or(self, other: Self) -> Self {
        unsafe { Self(_mm_or_si128(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn shl<const BITS: u32>(self) -> Self {
        unsafe { Self(core::arch::x86_64::_mm_sll_epi32(self.0, _mm_cvtsi32_si128(BITS.cast_signed()))) }
    }

    /// The compiler finds the shuffle or rotate instruction where there is one.
    #[inline(always)]
    pub fn rotate<const BITS: u32>(self) -> Self {
        unsafe {
            match BITS {
                16 => Self(_mm_or_si128(_mm_slli_epi32::<16>(self.0), _mm_srli_epi32::<16>(self.0))),
                12 => Self(_mm_or_si128(_mm_slli_epi32::<12>(self.0), _mm_srli_epi32::<20>(self.0))),
                8 => Self(_mm_or_si128(_mm_slli_epi32::<8>(self.0), _mm_srli_epi32::<24>(self.0))),
                _ => Self(_mm_or_si128(_mm_slli_epi32::<7>(self.0), _mm_srli_epi32::<25>(self.0))),
            }
        }
    }

    #[inline(always)]
    pub fn greater(self, other: Self) -> Self {
        unsafe { Self(_mm_cmpgt_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn tops(self) -> u32 {
        unsafe { _mm_movemask_ps(_mm_castsi128_ps(self.0)).cast_unsigned() }
    }

    #[inline(always)]
    pub fn multiply_low(self, other: Self) -> U64x2 {
        unsafe { U64x2(_mm_mul_epu32(_mm_unpacklo_epi32(self.0, self.0), _mm_unpacklo_epi32(other.0, other.0))) }
    }

    #[inline(always)]
    pub fn multiply_high(self, other: Self) -> U64x2 {
        unsafe { U64x2(_mm_mul_epu32(_mm_unpackhi_epi32(self.0, self.0), _mm_unpackhi_epi32(other.0, other.0))) }
    }

    #[inline(always)]
    pub fn raised_low(self) -> U64x2 {
        unsafe { U64x2(_mm_unpacklo_epi32(_mm_setzero_si128(), self.0)) }
    }

    #[inline(always)]
    pub fn raised_high(self) -> U64x2 {
        unsafe { U64x2(_mm_unpackhi_epi32(_mm_setzero_si128(), self.0)) }
    }

    #[inline(always)]
    pub fn bytes_at_most(self, most: u8) -> u32 {
        unsafe {
            let over = _mm_subs_epu8(self.0, _mm_set1_epi8(most.cast_signed()));
            _mm_movemask_epi8(_mm_cmpeq_epi8(over, _mm_setzero_si128())).cast_unsigned()
        }
    }

    #[inline(always)]
    pub fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        unsafe {
            let ab_low = _mm_unpacklo_epi32(a.0, b.0);
            let ab_high = _mm_unpackhi_epi32(a.0, b.0);
            let cd_low = _mm_unpacklo_epi32(c.0, d.0);
            let cd_high = _mm_unpackhi_epi32(c.0, d.0);
            [
                Self(_mm_unpacklo_epi64(ab_low, cd_low)),
                Self(_mm_unpackhi_epi64(ab_low, cd_low)),
                Self(_mm_unpacklo_epi64(ab_high, cd_high)),
                Self(_mm_unpackhi_epi64(ab_high, cd_high)),
            ]
        }
    }
}

#[expect(missing_docs, reason = "as in `wasm`")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once at the top")]
impl U64x2 {
    #[inline(always)]
    pub fn splat(value: u64) -> Self {
        unsafe { Self(_mm_set1_epi64x(value.cast_signed())) }
    }

    #[inline(always)]
    pub fn gather(first: &u64, second: &u64) -> Self {
        unsafe {
            let low = _mm_castsi128_pd(_mm_loadl_epi64(core::ptr::from_ref(first).cast()));
            Self(_mm_castpd_si128(_mm_loadh_pd(low, core::ptr::from_ref(second).cast())))
        }
    }

    #[inline(always)]
    pub fn to_array(self) -> [u64; 2] {
        let mut out = [0; 2];
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), self.0) }
        out
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        unsafe { Self(_mm_add_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm_sub_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn shr<const BITS: u32>(self) -> Self {
        unsafe { Self(_mm_srl_epi64(self.0, _mm_cvtsi32_si128(BITS.cast_signed()))) }
    }

    #[inline(always)]
    pub fn shr_by(self, bits: u32) -> Self {
        unsafe { Self(_mm_srl_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed()))) }
    }

    #[inline(always)]
    pub fn shl_by(self, bits: u32) -> Self {
        unsafe { Self(_mm_sll_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed()))) }
    }

    #[inline(always)]
    pub fn low_words(self) -> Self {
        unsafe { Self(_mm_and_si128(self.0, _mm_set1_epi64x(0xffff_ffff))) }
    }

    #[inline(always)]
    pub fn evens(self, other: Self) -> U32x4 {
        unsafe {
            U32x4(_mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(
                _mm_castsi128_ps(self.0),
                _mm_castsi128_ps(other.0),
            )))
        }
    }

    #[inline(always)]
    pub fn odds(self, other: Self) -> U32x4 {
        unsafe {
            U32x4(_mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(
                _mm_castsi128_ps(self.0),
                _mm_castsi128_ps(other.0),
            )))
        }
    }

    #[inline(always)]
    pub fn to_doubles(self) -> F64x2 {
        unsafe { F64x2(_mm_castsi128_pd(self.0)) }
    }
}

#[expect(missing_docs, reason = "as in `wasm`")]
#[expect(clippy::undocumented_unsafe_blocks, reason = "said once at the top")]
impl F64x2 {
    #[inline(always)]
    pub fn splat(value: f64) -> Self {
        unsafe { Self(_mm_set1_pd(value)) }
    }

    #[inline(always)]
    pub fn load(from: &[f64; 2]) -> Self {
        unsafe { Self(_mm_loadu_pd(from.as_ptr())) }
    }

    #[inline(always)]
    pub fn store(self, to: &mut [f64; 2]) {
        unsafe { _mm_storeu_pd(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    pub fn to_array(self) -> [f64; 2] {
        let mut out = [0.0; 2];
        self.store(&mut out);
        out
    }

    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        unsafe { Self(_mm_add_pd(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm_sub_pd(self.0, other.0)) }
    }

    #[inline(always)]
    pub fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm_mul_pd(self.0, other.0)) }
    }

    /// `minpd` gives its second operand where neither is less.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        unsafe { Self(_mm_min_pd(other.0, self.0)) }
    }

    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        unsafe { Self(_mm_max_pd(other.0, self.0)) }
    }
}
