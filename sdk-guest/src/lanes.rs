//! Four 32-bit lanes, the same arithmetic on every target.
//!
//! WebAssembly with `simd128` and x86-64 use their own instructions; everything else plain arrays.

pub(crate) use target::U32x4;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod target {
    use core::arch::wasm32::{i8x16_shuffle, u32x4, u32x4_add, u32x4_shl, u32x4_shr, u32x4_shuffle, u32x4_splat, v128, v128_or, v128_store, v128_xor};

    /// Four 32-bit lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct U32x4(v128);

    impl U32x4 {
        #[inline(always)]
        pub(crate) fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
            Self(u32x4(a, b, c, d))
        }

        #[inline(always)]
        pub(crate) fn splat(value: u32) -> Self {
            Self(u32x4_splat(value))
        }

        #[inline(always)]
        pub(crate) fn add(self, other: Self) -> Self {
            Self(u32x4_add(self.0, other.0))
        }

        #[inline(always)]
        pub(crate) fn xor(self, other: Self) -> Self {
            Self(v128_xor(self.0, other.0))
        }

        /// Rotates each lane left; by 16 and 8 a byte shuffle is one instruction where shifts are three.
        #[inline(always)]
        pub(crate) fn rotate<const BITS: u32>(self) -> Self {
            match BITS {
                16 => Self(i8x16_shuffle::<2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13>(self.0, self.0)),
                8 => Self(i8x16_shuffle::<3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14>(self.0, self.0)),
                _ => Self(v128_or(u32x4_shl(self.0, BITS), u32x4_shr(self.0, 32 - BITS))),
            }
        }

        #[inline(always)]
        pub(crate) fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
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

        #[inline(always)]
        #[expect(unsafe_code, reason = "v128_store takes a raw pointer")]
        pub(crate) fn store(self, to: &mut [u32; 4]) {
            // SAFETY: `to` is 16 writable bytes, and Wasm stores need no alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the compiler asks for it although SSE2 is part of every x86-64")]
mod target {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_or_si128, _mm_set1_epi32, _mm_set_epi32, _mm_slli_epi32, _mm_srli_epi32, _mm_storeu_si128,
        _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64, _mm_xor_si128,
    };

    /// Four 32-bit lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct U32x4(__m128i);

    impl U32x4 {
        #[inline(always)]
        pub(crate) fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { Self(_mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())) }
        }

        #[inline(always)]
        pub(crate) fn splat(value: u32) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { Self(_mm_set1_epi32(value.cast_signed())) }
        }

        #[inline(always)]
        pub(crate) fn add(self, other: Self) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { Self(_mm_add_epi32(self.0, other.0)) }
        }

        #[inline(always)]
        pub(crate) fn xor(self, other: Self) -> Self {
            // SAFETY: SSE2 is part of x86-64.
            unsafe { Self(_mm_xor_si128(self.0, other.0)) }
        }

        /// Rotates each lane left; the compiler finds the shuffle or rotate instruction where there is one.
        #[inline(always)]
        pub(crate) fn rotate<const BITS: u32>(self) -> Self {
            // SAFETY: SSE2 is part of x86-64.
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
        pub(crate) fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            // SAFETY: SSE2 is part of x86-64.
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

        #[inline(always)]
        pub(crate) fn store(self, to: &mut [u32; 4]) {
            // SAFETY: `to` is 16 writable bytes, and this store needs no alignment.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), self.0) }
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
mod target {
    /// Four 32-bit lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct U32x4([u32; 4]);

    impl U32x4 {
        pub(crate) fn new(a: u32, b: u32, c: u32, d: u32) -> Self {
            Self([a, b, c, d])
        }

        pub(crate) fn splat(value: u32) -> Self {
            Self([value; 4])
        }

        #[inline(always)]
        pub(crate) fn add(self, other: Self) -> Self {
            let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
            Self([a.wrapping_add(e), b.wrapping_add(f), c.wrapping_add(g), d.wrapping_add(h)])
        }

        #[inline(always)]
        pub(crate) fn xor(self, other: Self) -> Self {
            let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
            Self([a ^ e, b ^ f, c ^ g, d ^ h])
        }

        #[inline(always)]
        pub(crate) fn rotate<const BITS: u32>(self) -> Self {
            Self(self.0.map(|lane| lane.rotate_left(BITS)))
        }

        #[inline(always)]
        pub(crate) fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.0, b.0);
            let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.0, d.0);
            [Self([a0, b0, c0, d0]), Self([a1, b1, c1, d1]), Self([a2, b2, c2, d2]), Self([a3, b3, c3, d3])]
        }

        pub(crate) fn store(self, to: &mut [u32; 4]) {
            *to = self.0;
        }
    }
}
