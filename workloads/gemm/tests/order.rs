//! The packed kernel against the order's definition, written as three loops: the same bits for every shape and tiling.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use forge_sdk_guest::npy::descr;
use forge_sdk_guest::{Failure, Rectangle};
use kernel_gemm::product::DEPTH;
use kernel_gemm::{Arguments, Real, tile};

/// A generator of this test's own.
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Numbers of many magnitudes and either sign: sums depend on their order.
    fn number(&mut self) -> f64 {
        let scale = [1e-6, 1e-3, 1.0, 1e3][usize::try_from(self.below(4)).unwrap()];
        (self.draw() as f64 / f64::from(1u32 << 30) - 1.0) * scale
    }
}

struct Values<T> {
    rows: u64,
    columns: u64,
    values: Vec<T>,
}

impl<T: Real> Values<T> {
    fn random(dice: &mut Dice, rows: u64, columns: u64) -> Self {
        Self { rows, columns, values: (0..rows * columns).map(|_| T::nearest(dice.number())).collect() }
    }

    fn at(&self, row: u64, column: u64) -> T {
        self.values[usize::try_from(row * self.columns + column).unwrap()]
    }

    fn file(&self) -> Vec<u8> {
        let shape = format!("({}, {})", self.rows, self.columns);
        let dictionary = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", descr(T::NUMBER));
        let mut bytes = b"\x93NUMPY\x01\0\x76\0".to_vec();
        bytes.extend(format!("{dictionary:<117}\n").bytes());
        self.values.iter().for_each(|value| value.write(&mut bytes));
        bytes
    }
}

/// The definition.
fn defined<T: Real>(given: &Arguments, a: &Values<T>, b: &Values<T>, c: &Values<T>, row: u64, column: u64) -> T {
    let (alpha, beta) = (T::nearest(given.alpha), T::nearest(given.beta));
    let mut sum = T::ZERO;
    for first in (0..given.k).step_by(usize::try_from(DEPTH).unwrap()) {
        let mut block = T::ZERO;
        for step in first..given.k.min(first + DEPTH) {
            block = block + a.at(row, step) * b.at(step, column);
        }
        sum = sum + block;
    }
    let product = alpha * sum;
    let zero = T::ZERO;
    match (alpha == zero, beta == zero) {
        (false, true) => product,
        (false, false) => product + beta * c.at(row, column),
        (true, false) => beta * c.at(row, column),
        (true, true) => zero,
    }
}

/// Multiplies in tiles of a size and compares every cell.
fn check<T: Real>(dice: &mut Dice, (m, n, k): (u64, u64, u64), side: u64, alpha: f64, beta: f64) {
    let given = Arguments { m, n, k, alpha, beta };
    let a = Values::<T>::random(dice, m, k);
    let b = Values::<T>::random(dice, k, n);
    let c = Values::<T>::random(dice, m, n);
    let files = [a.file(), b.file(), c.file()];
    let open = |name: &str| {
        let at = ["a", "b", "c"].iter().position(|other| *other == name).unwrap();
        Ok(files[at].as_slice())
    };
    for row in (0..m).step_by(usize::try_from(side).unwrap()) {
        for column in (0..n).step_by(usize::try_from(side).unwrap()) {
            let part = |first: u64, end: u64| u32::try_from(side.min(end - first)).unwrap();
            let at = Rectangle { row, column, rows: part(row, m), columns: part(column, n) };
            let found = tile::<T, &[u8]>(&given, at, open).unwrap();
            let mut expected = Vec::new();
            for row in row..row + u64::from(at.rows) {
                for column in column..column + u64::from(at.columns) {
                    defined(&given, &a, &b, &c, row, column).write(&mut expected);
                }
            }
            assert!(found == expected, "{m} x {n} x {k} in tiles of {side}, alpha {alpha}, beta {beta}, at {at:?}");
        }
    }
}

#[test]
fn any_shape_and_any_tiling_give_the_defined_bits() {
    let mut dice = Dice(7);
    let edges = [(1, 1, 1), (4, 4, 256), (4, 8, 257), (5, 9, 255), (3, 1, 513), (1, 17, 4), (130, 6, 300), (65, 64, 1)];
    for shape in edges {
        for side in [1024, 7] {
            check::<f64>(&mut dice, shape, side, 1.0, 0.0);
            check::<f32>(&mut dice, shape, side, 1.0, 0.0);
        }
    }
    for _ in 0..60 {
        let shape = (1 + dice.below(70), 1 + dice.below(70), 1 + dice.below(700));
        let side = 1 + dice.below(40);
        let (alpha, beta) = (dice.number(), dice.number());
        check::<f64>(&mut dice, shape, side, alpha, beta);
        check::<f32>(&mut dice, shape, side, alpha, beta);
    }
}

#[test]
fn factors_of_zero_follow_the_reference() {
    let mut dice = Dice(8);
    for (alpha, beta) in [(0.0, 0.0), (0.0, 2.5), (0.0, 1.0), (-1.5, 0.0), (1.0, 1.0)] {
        check::<f64>(&mut dice, (9, 10, 11), 4, alpha, beta);
        check::<f32>(&mut dice, (9, 10, 11), 4, alpha, beta);
    }
}

#[test]
fn blocks_are_part_of_the_order() {
    // Guards the tests above: a plain sum over all of k gives other bits, else they would prove nothing of blocks.
    let mut dice = Dice(9);
    let given = Arguments { m: 1, n: 64, k: 700, alpha: 1.0, beta: 0.0 };
    let (a, b) = (Values::<f64>::random(&mut dice, 1, 700), Values::<f64>::random(&mut dice, 700, 64));
    let plain = |column| (0..700).fold(0.0, |sum, step| sum + a.at(0, step) * b.at(step, column));
    let differ = (0..64).filter(|column| plain(*column) != defined(&given, &a, &b, &a, 0, *column)).count();
    assert!(differ > 16, "{differ} of 64 cells differ");
}

#[test]
fn what_a_factor_of_zero_excludes_is_not_read() {
    let absent = |name: &str| Err::<&[u8], _>(Failure::Input(format!("no '{name}'")));
    let at = Rectangle { row: 0, column: 0, rows: 2, columns: 3 };
    let given = Arguments { m: 2, n: 3, k: 4, alpha: 0.0, beta: 0.0 };
    assert_eq!(tile::<f64, &[u8]>(&given, at, absent).unwrap(), vec![0; 48]);
    for (alpha, beta, missing) in [(1.0, 0.0, "'a'"), (0.0, 1.0, "'c'"), (1.0, 1.0, "'c'")] {
        let refused = tile::<f64, &[u8]>(&Arguments { alpha, beta, ..given }, at, absent).unwrap_err();
        assert!(matches!(&refused, Failure::Input(text) if text.contains(missing)), "{refused:?}");
    }
    let wide = tile::<f32, &[u8]>(&Arguments { alpha: 1e300, ..given }, at, absent).unwrap_err();
    assert!(matches!(&wide, Failure::Arguments(text) if text.contains("args.alpha")), "{wide:?}");
}

#[test]
fn zeros_of_the_padding_meet_no_infinity() {
    // The last rows and columns are padded with zeros inside; infinities elsewhere must not reach their neighbours.
    let values = |rows, columns, values: &[f64]| Values { rows, columns, values: values.to_vec() };
    let (a, b) = (values(1, 2, &[f64::INFINITY, 1.0]), values(2, 1, &[1.0, 2.0]));
    let given = Arguments { m: 1, n: 1, k: 2, alpha: 1.0, beta: 0.0 };
    let files = [a.file(), b.file()];
    let at = Rectangle { row: 0, column: 0, rows: 1, columns: 1 };
    let found = tile::<f64, &[u8]>(&given, at, |name| Ok(files[usize::from(name == "b")].as_slice())).unwrap();
    assert_eq!(found, f64::INFINITY.to_le_bytes());
}
