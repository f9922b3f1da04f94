//! Powers of two from fixed-point exponents, in integer arithmetic: the same bits everywhere, and no
//! floating-point operation whose result the sandbox would have to canonicalise.

use crate::tables::{LINEAR, POWERS, QUADRATIC};

/// Fraction bits of a fixed-point exponent.
pub(crate) const FRACTION_BITS: u32 = 48;
/// One, as a fixed-point exponent.
const ONE: f64 = (1_u64 << FRACTION_BITS) as f64;
/// Added to every exponent, so that its integer part counts from the smallest double's.
const BIAS: i64 = 1022 << FRACTION_BITS;

/// The biased fixed-point form of a base-2 exponent in -1000 .. 1000.
#[expect(clippy::cast_possible_truncation, reason = "below 1000 * 2^48, far inside 64 bits")]
pub(crate) fn biased(exponent: f64) -> i64 {
    (exponent * ONE) as i64 + BIAS
}

/// Bits of the double `2^x`, where `exponent` is `biased(x)`; relative error below 4e-12.
///
/// Ten bits of the fraction choose a tabulated power, the next 32 a quadratic correction.
#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "a biased exponent is positive")]
pub(crate) fn power_of_two(exponent: i64) -> u64 {
    const TOP: u64 = 0xfff0_0000_0000_0000;
    let x = exponent as u64;
    let rest = (x >> 6) & 0xffff_ffff;
    let growth = (rest * (LINEAR + ((rest * QUADRATIC) >> 32))) >> 32;
    let power = POWERS[(x >> 38) as usize & 1023];
    power + (((power >> 21) * growth) >> 21) + ((x << 4) & TOP)
}

/// `exp(x)` for x in -600 .. 600, relative error below 4e-12.
pub(crate) fn exp(x: f64) -> f64 {
    f64::from_bits(power_of_two(biased(x * core::f64::consts::LOG2_E)))
}

/// Natural logarithm of a positive normal double, absolute error below 1e-15 times its size plus 1e-16.
///
/// `ln(m 2^k) = k ln 2 + 2 artanh((m - 1) / (m + 1))` with m between sqrt(1/2) and sqrt(2).
#[expect(clippy::cast_precision_loss, reason = "an exponent has 11 bits")]
pub(crate) fn ln(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let steps = x.to_bits().wrapping_sub(SQRT_HALF).cast_signed() >> 52;
    let m = f64::from_bits(x.to_bits().wrapping_sub((steps << 52).cast_unsigned()));
    let z = (m - 1.0) / (m + 1.0);
    let z2 = z * z;
    let mut series = 0.0;
    for odd in [23.0, 21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = series * z2 + 1.0 / odd;
    }
    steps as f64 * core::f64::consts::LN_2 + 2.0 * (z + z * z2 * series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_within_their_error() {
        let mut worst = 0.0_f64;
        for step in -300_000..300_000 {
            let x = f64::from(step) * 1e-3 + f64::from(step) * 1.234_567_89e-7;
            worst = worst.max((exp(x) / x.exp() - 1.0).abs());
        }
        assert!(worst < 4e-12, "{worst}");
    }

    #[test]
    fn logarithms_are_within_their_error() {
        for step in 1..200_000 {
            let x = f64::from(step) * 5e-6 * f64::from(step % 97 + 1);
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs() + 1e-16, "{x}");
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
