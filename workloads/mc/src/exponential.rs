//! Powers of two from fixed-point exponents, in integer arithmetic: the same bits everywhere, and no
//! floating-point operation whose result the sandbox would have to canonicalise.

use forge_sdk_guest::lanes::{F64x2, U32x4, U64x2};

use crate::tables::{LINEAR, POWERS, QUADRATIC};

/// Fraction bits of a fixed-point exponent: what lies below the table's index fills a 32-bit lane.
pub(crate) const FRACTION_BITS: u32 = 42;
/// One, as a fixed-point exponent.
const ONE: f64 = (1_u64 << FRACTION_BITS) as f64;
/// Added to every exponent, so that its integer part counts from the smallest double's.
const BIAS: f64 = 1022.0;

/// The biased fixed-point form of a base-2 exponent in -1000 .. 1000.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below 2^11 2^42")]
pub(crate) fn biased(exponent: f64) -> u64 {
    ((exponent + BIAS) * ONE) as u64
}

/// The doubles `2^x` for two pairs of biased exponents; relative error below 4e-12.
///
/// Ten bits of the fraction choose a tabulated power, the other 32 a quadratic correction.
#[inline(always)]
pub(crate) fn powers_of_two(first: U64x2, second: U64x2) -> (F64x2, F64x2) {
    let rest = first.evens(second);
    let whole = first.odds(second);
    let [a, b, c, d] = whole.and(U32x4::splat(1023)).to_array().map(|index| &POWERS[index as usize & 1023]);
    let (first_power, second_power) = (U64x2::gather(a, b), U64x2::gather(c, d));

    let quadratic = U32x4::splat(QUADRATIC);
    let slope = rest.multiply_low(quadratic).odds(rest.multiply_high(quadratic)).add(U32x4::splat(LINEAR));
    let growth = rest.multiply_low(slope).odds(rest.multiply_high(slope));
    let leading = first_power.shr::<21>().evens(second_power.shr::<21>());
    let exponents = whole.shl::<10>().and(U32x4::splat(0xfff0_0000));
    (
        first_power.add(growth.multiply_low(leading).shr::<21>()).add(exponents.raised_low()).to_doubles(),
        second_power.add(growth.multiply_high(leading).shr::<21>()).add(exponents.raised_high()).to_doubles(),
    )
}

/// The double `2^x` for one biased exponent: the same bits as [`powers_of_two`].
pub(crate) fn power_of_two(exponent: u64) -> f64 {
    let pair = U64x2::splat(exponent);
    let [power, _] = powers_of_two(pair, pair).0.to_array();
    power
}

/// `exp(x)` for x in -600 .. 600, relative error below 4e-12.
pub(crate) fn exp(x: f64) -> f64 {
    power_of_two(biased(x * core::f64::consts::LOG2_E))
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
