//! Vectors of 128 bits of doubles or singles: products and sums that round once each, never fused.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod lanes {
    #![expect(unsafe_code, reason = "loads and stores take raw pointers")]

    use core::arch::wasm32::{
        f32x4_add, f32x4_mul, f32x4_splat, f64x2_add, f64x2_mul, f64x2_splat, v128, v128_load, v128_store,
    };

    macro_rules! vector {
        ($name:ident, $real:ty, $lanes:literal, $splat:ident, $add:ident, $mul:ident) => {
            #[derive(Clone, Copy)]
            pub struct $name(v128);

            impl $name {
                #[inline(always)]
                pub fn splat(value: $real) -> Self {
                    Self($splat(value))
                }

                #[inline(always)]
                pub fn load(from: &[$real; $lanes]) -> Self {
                    // SAFETY: `from` is 16 readable bytes, and Wasm loads need no alignment.
                    Self(unsafe { v128_load(from.as_ptr().cast()) })
                }

                /// Of little-endian bytes.
                #[inline(always)]
                pub fn read(from: &[u8; 16]) -> Self {
                    // SAFETY: `from` is 16 readable bytes, and Wasm loads need no alignment.
                    Self(unsafe { v128_load(from.as_ptr().cast()) })
                }

                /// The sum of the lanes in order, as a double.
                #[inline(always)]
                pub fn sum(self) -> f64 {
                    let mut lanes = [0.0; $lanes];
                    self.store(&mut lanes);
                    lanes.into_iter().map(f64::from).sum()
                }

                #[inline(always)]
                pub fn store(self, to: &mut [$real; $lanes]) {
                    // SAFETY: `to` is 16 writable bytes, and Wasm stores need no alignment.
                    unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
                }

                #[inline(always)]
                pub fn add(self, other: Self) -> Self {
                    Self($add(self.0, other.0))
                }

                #[inline(always)]
                pub fn mul(self, other: Self) -> Self {
                    Self($mul(self.0, other.0))
                }
            }
        };
    }

    vector!(F64s, f64, 2, f64x2_splat, f64x2_add, f64x2_mul);
    vector!(F32s, f32, 4, f32x4_splat, f32x4_add, f32x4_mul);
}

/// Plain arrays: compilers make vectors of them where there are some.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod lanes {
    macro_rules! vector {
        ($name:ident, $real:ty, $lanes:literal) => {
            #[derive(Clone, Copy)]
            pub struct $name([$real; $lanes]);

            impl $name {
                #[inline(always)]
                pub fn splat(value: $real) -> Self {
                    Self([value; $lanes])
                }

                #[inline(always)]
                pub fn load(from: &[$real; $lanes]) -> Self {
                    Self(*from)
                }

                /// Of little-endian bytes.
                #[inline(always)]
                pub fn read(from: &[u8; 16]) -> Self {
                    let numbers = from.as_chunks::<{ 16 / $lanes }>().0;
                    Self(core::array::from_fn(|lane| <$real>::from_le_bytes(numbers[lane])))
                }

                /// The sum of the lanes in order, as a double.
                #[inline(always)]
                pub fn sum(self) -> f64 {
                    self.0.into_iter().map(f64::from).sum()
                }

                #[inline(always)]
                pub fn store(self, to: &mut [$real; $lanes]) {
                    *to = self.0;
                }

                #[inline(always)]
                pub fn add(self, other: Self) -> Self {
                    Self(core::array::from_fn(|lane| self.0[lane] + other.0[lane]))
                }

                #[inline(always)]
                pub fn mul(self, other: Self) -> Self {
                    Self(core::array::from_fn(|lane| self.0[lane] * other.0[lane]))
                }
            }
        };
    }

    vector!(F64s, f64, 2);
    vector!(F32s, f32, 4);
}

pub use lanes::{F32s, F64s};
