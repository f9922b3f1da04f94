//! What a product must be: exact sums of exact products, and the bound that rounding may use up.

use forge_tests::dice::Dice;
use forge_tests::npy::{Matrix, Real};

use super::Product;

/// Cells of a large product that are computed exactly; all of a small one.
const CELLS: u64 = 3_000;

/// a + b exactly, as a double and what it lacks. Source: Knuth, TAOCP 2, 4.2.2, theorem B.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// a * b exactly. Source: Dekker, "A floating-point technique for extending the available precision", 1971.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let split = |x: f64| {
        let scaled = 134_217_729.0 * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    (product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)
}

/// alpha * sum of products + beta * c, to twice the precision of doubles, and the sum of absolute values.
fn exact(pairs: impl Iterator<Item = (f64, f64)>, alpha: f64, last: (f64, f64)) -> (f64, f64) {
    let (mut high, mut low, mut size) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        let (product, lack) = two_product(a, b);
        let (sum, more) = two_sum(high, product);
        (high, low) = (sum, low + lack + more);
        size += (a * b).abs();
    }
    let (scaled, lack) = two_product(alpha, high);
    let (other, other_lack) = two_product(last.0, last.1);
    let (sum, more) = two_sum(scaled, other);
    (sum + (more + lack + other_lack + alpha * low), (alpha * size).abs() + other.abs())
}

/// Asserts that cells are near their exact sums, and every cell by Freivalds' product with a random vector.
pub fn check<T: Real>(product: &Product<T>, found: &Matrix<T>) {
    let worst = cells(product, found).unwrap_or_else(|wrong| panic!("{wrong}"));
    freivalds(product, found).unwrap_or_else(|wrong| panic!("{wrong}"));
    let (m, n, k) = (product.a.rows, product.b.columns, product.a.columns);
    println!("{m} x {n} x {k} of {}: at most {worst:.4} of the bound", T::DESCR);
}

/// The largest share of its bound that a cell's error takes.
fn cells<T: Real>(product: &Product<T>, found: &Matrix<T>) -> Result<f64, String> {
    let (m, n) = (product.a.rows, product.b.columns);
    assert_eq!((found.rows, found.columns), (m, n));
    let mut dice = Dice::new(99);
    let all = (m * n) as u64 <= CELLS;
    let mut worst = 0.0f64;
    for index in 0..CELLS.min((m * n) as u64) {
        let cell = usize::try_from(if all { index } else { dice.below((m * n) as u64) }).unwrap();
        worst = worst.max(of_bound(product, found, cell / n, cell % n)?);
    }
    Ok(worst)
}

/// The error of a cell over gamma(k + 3) (|alpha| |A| |B| + |beta| |C|), gamma(k) = k u / (1 - k u).
///
/// Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1; three more roundings are those
/// of alpha, beta and their sum. Where a sum is taken in blocks, the bound only gets better.
fn of_bound<T: Real>(product: &Product<T>, found: &Matrix<T>, row: usize, column: usize) -> Result<f64, String> {
    let (n, k) = (product.b.columns, product.a.columns);
    let (alpha, beta) = (T::nearest(product.alpha).double(), T::nearest(product.beta).double());
    let left = product.a.row(row).iter().map(|value| value.double());
    let right = (0..k).map(|step| product.b.values[step * n + column].double());
    let old = product.c.as_ref().map_or(0.0, |c| c.row(row)[column].double());
    let (truth, size) = exact(left.zip(right), alpha, (beta, old));
    let error = (found.row(row)[column].double() - truth).abs();
    let steps = (k + 3) as f64 * T::ROUNDING;
    let bound = steps / (1.0 - steps) * size;
    if error <= bound {
        Ok(if bound > 0.0 { error / bound } else { 0.0 })
    } else {
        Err(format!("row {row}, column {column}: {error:e} of {bound:e}"))
    }
}

/// |C r - (alpha A (B r) + beta C0 r)| for a random vector r: a wrong cell anywhere shows.
///
/// Source: Freivalds, "Probabilistic machines can use less running time", 1977.
fn freivalds<T: Real>(product: &Product<T>, found: &Matrix<T>) -> Result<(), String> {
    let mut dice = Dice::new(7);
    let vector: Vec<f64> =
        (0..product.b.columns).map(|_| (dice.draw() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect();
    let times = |matrix: &Matrix<T>, vector: &[f64]| -> Vec<f64> {
        let dot = |row| matrix.row(row).iter().zip(vector).map(|(a, x)| a.double() * x).sum();
        (0..matrix.rows).map(dot).collect()
    };
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let (alpha, beta) = (T::nearest(product.alpha).double(), T::nearest(product.beta).double());
    let inner = times(&product.b, &vector);
    let expected = times(&product.a, &inner);
    let claimed = times(found, &vector);
    let old = product.c.as_ref().map(|c| times(c, &vector));
    let b_size: f64 = squares(&product.b.values.iter().map(|x| x.double()).collect::<Vec<_>>());
    let length = (product.a.columns + product.b.columns) as f64;
    for row in 0..found.rows {
        let a_row: Vec<f64> = product.a.row(row).iter().map(|x| x.double()).collect();
        let old_row: Vec<f64> =
            product.c.as_ref().map_or_else(Vec::new, |c| c.row(row).iter().map(|x| x.double()).collect());
        let size = alpha.abs() * (squares(&a_row) * b_size * squares(&vector)).sqrt()
            + beta.abs() * (squares(&old_row) * squares(&vector)).sqrt();
        let expected = alpha * expected[row] + old.as_ref().map_or(0.0, |old| beta * old[row]);
        let bound = 8.0 * T::ROUNDING * length.sqrt() * size;
        let error = (claimed[row] - expected).abs();
        if error.is_nan() || error > bound {
            return Err(format!("row {row}: {error:e} of {bound:e}"));
        }
    }
    Ok(())
}

#[test]
fn a_wrong_cell_is_found() {
    // Guards the tests beside it: without this, a check that accepts everything would pass.
    let product = Product::<f64>::new((8, 9, 10));
    let cell = |row: usize, column: usize| {
        let pairs = (0..10).map(|step| (product.a.row(row)[step], product.b.row(step)[column]));
        exact(pairs, 1.0, (0.0, 0.0)).0
    };
    let values: Vec<f64> = (0..72).map(|at| cell(at / 9, at % 9)).collect();
    let good = Matrix { rows: 8, columns: 9, values };
    check(&product, &good);
    let changed = |change: &dyn Fn(&mut Vec<f64>)| {
        let mut changed = good.clone();
        change(&mut changed.values);
        changed
    };
    assert!(cells(&product, &changed(&|values| values[40] *= 1.0 + 1e-12)).is_err());
    let swapped = changed(&|values| values.swap(3, 4));
    assert!(cells(&product, &swapped).is_err());
    assert!(freivalds(&product, &swapped).is_err());
    assert!(freivalds(&product, &changed(&|values| values[71] = f64::NAN)).is_err());
}
