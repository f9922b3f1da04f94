//! Whether a tile is the one that its unit gives, for a few percent of what computing it costs.
//!
//! Freivalds (1977): C r is compared with A (B r) for random vectors r, row by row, within what rounding can do. Some
//! cells are computed again exactly. A row that does not fit is never refuted by an estimate: it is computed again, and
//! its bits decide. README.md has the bound and what the stated error means.

use forge_sdk_guest::checks::Verdict;
use forge_sdk_guest::input::Source;
use forge_sdk_guest::npy::Matrix;
use forge_sdk_guest::rng::Generator;
use forge_sdk_guest::{Failure, Fragment, Named, Part, Rectangle, Tile};

use crate::probe::{Probe, Probed};
use crate::product::DEPTH;
use crate::{Arguments, factor, tile};

/// Cells that are computed again.
pub const CELLS: usize = 32;
/// What is stated of a tile that passes: see README.md.
pub const ERROR: f64 = 1.0 / 1_048_576.0;
/// Steps of k that are seen at once: the probes of so many rows of B are kept. A multiple of [`DEPTH`].
const STEPS: u64 = 4 * DEPTH;
/// How many times the expected rounding a row may be off before it is computed again.
const ALLOWANCE: f64 = 8.0;
/// Mean square of a random vector's entries: uniform on 1 up to 2.
const MEAN_SQUARE: f64 = 7.0 / 3.0;

/// A cell that is computed again.
struct Cell<T> {
    row: usize,
    column: usize,
    sum: T,
    /// The cell of C, where beta is not zero.
    old: T,
}

/// Checks the tile `at`. `open` gives the inputs `a`, `b` and `c`.
///
/// # Errors
/// As [`tile`]: where the unit itself has no answer.
pub fn check<T: Probed, S: Source>(
    given: &Arguments,
    at: Rectangle,
    found: &Fragment,
    challenge: &[u8; 32],
    open: impl Fn(&str) -> Result<S, Failure>,
) -> Result<Verdict, Failure> {
    let values = match values::<T>(found, at) {
        Ok(values) => values,
        Err(wrong) => return Ok(Verdict::Wrong(wrong)),
    };
    let cells = u64::from(at.rows) * u64::from(at.columns);
    let all = 0..at.rows as usize;
    if factor::<T>("alpha", given.alpha)? == T::ZERO || cells <= CELLS as u64 {
        // Nothing is multiplied, or hardly anything.
        let wrong = recompute::<T, S>(given, at, values, all, &open)?;
        return Ok(wrong.map_or(Verdict::Sound(0.0), Verdict::Wrong));
    }
    let seen = see::<T, S>(given, at, values, challenge, &open)?;
    if let Some(wrong) = seen.wrong {
        return Ok(Verdict::Wrong(wrong));
    }
    let (Some(first), Some(last)) = (seen.suspects.first(), seen.suspects.last()) else {
        return Ok(Verdict::Sound(ERROR));
    };
    // A wrong row is wrong at once; where it is right, rounding is large here and the others must be seen as well.
    let mut wrong = recompute::<T, S>(given, at, values, *first..first + 1, &open)?;
    if wrong.is_none() && first < last {
        wrong = recompute::<T, S>(given, at, values, first + 1..last + 1, &open)?;
    }
    Ok(wrong.map_or(Verdict::Sound(ERROR), Verdict::Wrong))
}

/// The bytes of the one tile that a fragment must hold; what is wrong where it holds another thing.
fn values<T: Probed>(found: &Fragment, at: Rectangle) -> Result<&[u8], String> {
    let [Named { name, part: Part::Tile(Tile { at: place, number, values }) }] = found.parts.as_slice() else {
        return Err("a unit gives one part, a tile".into());
    };
    let same = (place.row, place.column, place.rows, place.columns) == (at.row, at.column, at.rows, at.columns);
    let bytes = at.rows as usize * at.columns as usize * size_of::<T>();
    if name == "c" && same && *number == T::NUMBER && values.len() == bytes {
        Ok(values)
    } else {
        Err("the tile has another name, place, number type or size than the unit's".into())
    }
}

/// Computes rows of the tile again and compares their bits: the first cell that differs.
fn recompute<T: Probed, S: Source>(
    given: &Arguments,
    at: Rectangle,
    found: &[u8],
    rows: core::ops::Range<usize>,
    open: &impl Fn(&str) -> Result<S, Failure>,
) -> Result<Option<String>, Failure> {
    let high = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let part = Rectangle { row: at.row + rows.start as u64, rows: high, ..at };
    let right = tile::<T, S>(given, part, open)?;
    let found = &found[rows.start * at.columns as usize * size_of::<T>()..][..right.len()];
    if found == right {
        return Ok(None);
    }
    let mut pairs = T::read(found).zip(T::read(&right)).enumerate();
    let differs = |(_, (found, right)): &(usize, (T, T))| bits(*found) != bits(*right);
    Ok(pairs.find(differs).map(|(place, (found, right))| {
        let (row, column) = (place / at.columns as usize, place % at.columns as usize);
        wrong(part, (row, column), found, right)
    }))
}

fn wrong<T: Probed>(at: Rectangle, (row, column): (usize, usize), found: T, right: T) -> String {
    let (found, right): (f64, f64) = (found.into(), right.into());
    let (row, column) = (at.row + row as u64, at.column + column as u64);
    format!("cell ({row}, {column}) is {found:e}, its row of A and its column of B give {right:e}")
}

fn bits<T: Probed>(value: T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut bytes);
    bytes
}

/// What the random vectors and the cells say.
struct Seen {
    /// A cell that is wrong.
    wrong: Option<String>,
    /// Rows that are further off than rounding would make them, rising; also those whose numbers are too large or too
    /// small to say.
    suspects: Vec<usize>,
}

fn see<T: Probed, S: Source>(
    given: &Arguments,
    at: Rectangle,
    found: &[u8],
    challenge: &[u8; 32],
    open: &impl Fn(&str) -> Result<S, Failure>,
) -> Result<Seen, Failure> {
    let (alpha, beta) = (factor::<T>("alpha", given.alpha)?, factor::<T>("beta", given.beta)?);
    let matrix = |name: &str, shape| Matrix::open(open(name)?, name, T::NUMBER, shape);
    let (columns, line) = (at.columns as usize, at.columns as usize * size_of::<T>());
    let random = Probe::random(columns, &mut Generator::new(challenge, 0));
    let mut cells = cells::<T>(at, &mut Generator::new(challenge, 1));

    let (a, b) = (matrix("a", (given.m, given.k))?, matrix("b", (given.k, given.n))?);
    let products = products(&a, &b, at, given.k, &random, &mut cells)?;
    let mut old = vec![[0.0; 3]; at.rows as usize];
    if beta != T::ZERO {
        let c = matrix("c", (given.m, given.n))?;
        let across = at.column..at.column + u64::from(at.columns);
        c.rows(at.row..at.row + u64::from(at.rows), across, |row, bytes| {
            old[row] = T::look::<false>(bytes, &random);
            cells.iter_mut().filter(|cell| cell.row == row).for_each(|cell| cell.old = T::at(bytes, cell.column));
        })?;
    }

    for cell in &cells {
        let product = alpha * cell.sum;
        let right = if beta == T::ZERO { product } else { product + (beta * cell.old) };
        let value = T::at(&found[cell.row * line..][..line], cell.column);
        if bits(value) != bits(right) {
            return Ok(Seen { wrong: Some(wrong(at, (cell.row, cell.column), value, right)), suspects: Vec::new() });
        }
    }

    let (alpha, beta): (f64, f64) = (alpha.into(), beta.into());
    let terms = (given.k + u64::from(at.columns)) as f64;
    let steps = (u64::from(at.columns) + DEPTH + given.k.div_ceil(DEPTH)) as f64;
    let fits = |row: usize| {
        let [first, second, squares] = T::look::<false>(&found[row * line..][..line], &random);
        let ([p, q, products], [c, d, olds]) = (products[row], old[row]);
        let off = [first - (alpha * p + beta * c), second - (alpha * q + beta * d)];
        let sizes = terms * alpha * alpha * products + steps * (squares + beta * beta * olds);
        let bound = ALLOWANCE * T::ROUNDOFF * (MEAN_SQUARE * sizes).sqrt();
        // A comparison with a NaN is false: nothing is said of such a row.
        bound.is_finite() && off.iter().all(|off| off.abs() <= bound)
    };
    Ok(Seen { wrong: None, suspects: (0..at.rows as usize).filter(|row| !fits(*row)).collect() })
}

/// The cells that are computed again.
fn cells<T: Probed>(at: Rectangle, generator: &mut Generator) -> Vec<Cell<T>> {
    let mut below = |bound: u32| ((u64::from(generator.next_u32()) * u64::from(bound)) >> 32) as usize;
    (0..CELLS).map(|_| Cell { row: below(at.rows), column: below(at.columns), sum: T::ZERO, old: T::ZERO }).collect()
}

/// A (B r) for both random vectors and the sums of squares of A and B, for each row of the tile. Brings the cells' sums
/// up on the way, in the order of [`crate::product`].
fn products<T: Probed, S: Source>(
    a: &Matrix<S>,
    b: &Matrix<S>,
    at: Rectangle,
    depth: u64,
    random: &Probe<T>,
    cells: &mut [Cell<T>],
) -> Result<Vec<[f64; 3]>, Failure> {
    let mut products = vec![[0.0; 3]; at.rows as usize];
    // The cells' columns of B as far as they are seen at once: each step's numbers side by side.
    let mut columns: Vec<[T; CELLS]> = Vec::new();
    let mut first = 0;
    while first < depth {
        let steps = first..depth.min(first + STEPS);
        let count = usize::try_from(steps.end - steps.start).unwrap_or(0);
        let mut probe = Probe::zero(count);
        columns.resize(count, [T::ZERO; CELLS]);
        b.rows(steps.clone(), at.column..at.column + u64::from(at.columns), |step, bytes| {
            probe.set(step, T::look::<false>(bytes, random).map(T::nearest));
            columns[step].iter_mut().zip(&*cells).for_each(|(number, cell)| *number = T::at(bytes, cell.column));
        })?;
        a.rows(at.row..at.row + u64::from(at.rows), steps.clone(), |row, bytes| {
            let sums = T::look::<true>(bytes, &probe);
            products[row].iter_mut().zip(sums).for_each(|(product, sum)| *product += sum);
            for (index, cell) in cells.iter_mut().enumerate().filter(|(_, cell)| cell.row == row) {
                let depth = usize::try_from(DEPTH).unwrap_or(1);
                for (a, b) in bytes.chunks(depth * size_of::<T>()).zip(columns.chunks(depth)) {
                    let sum = T::read(a).zip(b).fold(T::ZERO, |sum, (a, b)| sum + (a * b[index]));
                    cell.sum = cell.sum + sum;
                }
            }
        })?;
        first = steps.end;
    }
    Ok(products)
}
