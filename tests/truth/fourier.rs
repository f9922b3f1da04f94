//! A plain radix-2 discrete Fourier transform.
//!
//! Source: J. W. Cooley, J. W. Tukey, An algorithm for the machine calculation of complex Fourier series, 1965.

use std::f64::consts::TAU;

/// A complex number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Complex {
    pub re: f64,
    pub im: f64,
}

impl Complex {
    pub const fn new(re: f64, im: f64) -> Self {
        Self { re, im }
    }

    pub fn add(self, other: Self) -> Self {
        Self::new(self.re + other.re, self.im + other.im)
    }

    pub fn sub(self, other: Self) -> Self {
        Self::new(self.re - other.re, self.im - other.im)
    }

    pub fn mul(self, other: Self) -> Self {
        Self::new(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)
    }

    pub fn scale(self, factor: f64) -> Self {
        Self::new(self.re * factor, self.im * factor)
    }

    pub fn conjugate(self) -> Self {
        Self::new(self.re, -self.im)
    }

    pub fn exp(self) -> Self {
        let size = self.re.exp();
        Self::new(size * self.im.cos(), size * self.im.sin())
    }
}

/// Replaces `values` by `sum over k of values[k] exp(-2 pi i j k / n)`; n is a power of two.
pub fn forward(values: &mut [Complex]) {
    let n = values.len();
    assert!(n.is_power_of_two());
    reorder(values);
    let roots: Vec<Complex> = (0..n / 2)
        .map(|k| {
            let (sin, cos) = (-TAU * k as f64 / n as f64).sin_cos();
            Complex::new(cos, sin)
        })
        .collect();
    let mut half = 1;
    while half < n {
        let stride = n / (2 * half);
        for block in values.chunks_exact_mut(2 * half) {
            let (left, right) = block.split_at_mut(half);
            for (at, (a, b)) in left.iter_mut().zip(right).enumerate() {
                let turned = b.mul(roots[at * stride]);
                (*a, *b) = (a.add(turned), a.sub(turned));
            }
        }
        half *= 2;
    }
}

/// Undoes `forward`.
pub fn inverse(values: &mut [Complex]) {
    let n = values.len() as f64;
    values.iter_mut().for_each(|v| *v = v.conjugate());
    forward(values);
    values.iter_mut().for_each(|v| *v = v.conjugate().scale(1.0 / n));
}

/// Puts every value where its index read backwards in binary says.
fn reorder(values: &mut [Complex]) {
    let bits = values.len().trailing_zeros();
    if bits == 0 {
        return;
    }
    for at in 0..values.len() {
        let other = at.reverse_bits() >> (usize::BITS - bits);
        if at < other {
            values.swap(at, other);
        }
    }
}

#[test]
fn agrees_with_the_definition_and_inverts() {
    let n = 64;
    let values: Vec<Complex> = (0..n).map(|k| Complex::new(f64::from(k * k % 17), f64::from(k % 5))).collect();
    let mut found = values.clone();
    forward(&mut found);
    for (j, found) in found.iter().enumerate() {
        let expected = values.iter().enumerate().fold(Complex::new(0.0, 0.0), |sum, (k, value)| {
            let (sin, cos) = (-TAU * (j * k) as f64 / f64::from(n)).sin_cos();
            sum.add(value.mul(Complex::new(cos, sin)))
        });
        let error = found.sub(expected);
        assert!(error.re.abs() + error.im.abs() < 1e-11, "bin {j}");
    }
    inverse(&mut found);
    for (value, back) in values.iter().zip(&found) {
        assert!((value.re - back.re).abs() + (value.im - back.im).abs() < 1e-12);
    }
}
