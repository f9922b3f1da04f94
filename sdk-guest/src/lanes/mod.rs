//! Vectors of 128 bits: the same arithmetic, bit for bit, on every target.
//!
//! WebAssembly with `simd128` and x86-64 use their own instructions, everything else plain arrays. Only what kernels
//! here need exists; every operation is exact or rounds once, as IEEE 754 says.
#![allow(clippy::should_implement_trait, reason = "wrapping additions and masks are no arithmetic of operators")]

#[cfg(any(test, not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))))]
#[cfg_attr(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")), allow(dead_code))]
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
pub use portable::{F64x2, U32x4, U64x2};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::{F64x2, U32x4, U64x2};
#[cfg(target_arch = "x86_64")]
pub use x86::{F64x2, U32x4, U64x2};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{portable, x86};

    const WORDS: [[u32; 4]; 4] = [
        [0, 1, 0xffff_ffff, 0x8000_0000],
        [0x7fff_ffff, 0x1234_5678, 2, 0x8000_0001],
        [3, 0xdead_beef, 0x0102_0304, 0xfffe_0001],
        [0xffff_ffff; 4],
    ];

    /// The same expression on both implementations, compared as arrays.
    macro_rules! same {
        ($a:expr, $b:expr, |$x:ident, $y:ident| $result:expr) => {{
            let native = {
                let ($x, $y) = (x86::U32x4::load(&$a), x86::U32x4::load(&$b));
                $result
            };
            let plain = {
                let ($x, $y) = (portable::U32x4::load(&$a), portable::U32x4::load(&$b));
                $result
            };
            assert_eq!(native, plain, "{:?} {:?}", $a, $b);
        }};
    }

    #[test]
    fn words_agree_with_plain_arrays() {
        for a in WORDS {
            for b in WORDS {
                same!(a, b, |x, y| x.add(y).to_array());
                same!(a, b, |x, y| x.xor(y).to_array());
                same!(a, b, |x, y| x.and(y).to_array());
                same!(a, b, |x, y| x.or(y).to_array());
                same!(a, b, |x, y| x.greater(y).to_array());
                same!(a, b, |x, y| (x.greater(y).tops(), y.tops()));
                same!(a, b, |x, y| x.multiply_low(y).to_array());
                same!(a, b, |x, y| x.multiply_high(y).to_array());
                same!(a, b, |x, y| (x.rotate::<16>().to_array(), y.rotate::<12>().to_array()));
                same!(a, b, |x, y| (x.rotate::<8>().to_array(), y.rotate::<7>().to_array()));
                same!(a, b, |x, y| (x.shl::<10>().to_array(), y.shl::<3>().to_array()));
                same!(a, b, |x, y| (x.raised_low().to_array(), y.raised_high().to_array()));
                same!(a, b, |x, y| x.multiply_low(y).evens(x.multiply_high(y)).to_array());
                same!(a, b, |x, y| x.multiply_low(y).odds(x.multiply_high(y)).to_array());
                same!(a, b, |x, y| x.multiply_low(y).sub(y.multiply_high(x)).add(x.multiply_low(x)).to_array());
                same!(a, b, |x, y| (x.multiply_low(y).shr::<21>().to_array(), x.multiply_high(y).shl_by(9).to_array()));
                same!(a, b, |x, y| (
                    x.multiply_low(y).shr_by(17).to_array(),
                    x.multiply_high(y).low_words().to_array()
                ));
                same!(a, b, |x, y| (
                    x.bytes_at_most(7),
                    y.bytes_at_most(0),
                    x.bytes_at_most(255),
                    y.bytes_at_most(128)
                ));
            }
        }
    }

    #[test]
    fn doubles_agree_with_plain_arrays() {
        for (a, b) in [([1.5, -2.25], [1e300, 3.0]), ([0.1, 0.2], [0.3, 1e-300])] {
            let native = [x86::F64x2::load(&a), x86::F64x2::load(&b)];
            let plain = [portable::F64x2::load(&a), portable::F64x2::load(&b)];
            let [x, y] = native;
            let [p, q] = plain;
            assert_eq!(x.add(y).to_array(), p.add(q).to_array());
            assert_eq!(x.sub(y).to_array(), p.sub(q).to_array());
            assert_eq!(x.mul(y).to_array(), p.mul(q).to_array());
            assert_eq!(x.min(y).to_array(), p.min(q).to_array());
            assert_eq!(x.max(y).to_array(), p.max(q).to_array());
        }
    }
}
