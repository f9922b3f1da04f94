//! gemm@1: C = alpha A B + beta C of BLAS, `dgemm` and `sgemm`, one tile of C per unit.
//!
//! See README.md for the model, the order of operations and the sources. The order is frozen: the same version gives
//! the same bits for ever.

pub mod check;
mod probe;
pub mod product;
mod real;
mod vector;

use forge_sdk_guest::checks::{Checked, Verdict};
use forge_sdk_guest::input::{Source, open};
use forge_sdk_guest::npy::Matrix;
use forge_sdk_guest::{
    Failure, Fragment, Kernel, Named, Part, Rectangle, Task, Tile, arguments, export_checked_kernel, rectangle, serde,
};

pub use probe::Probed;
pub use real::Real;

/// The kernel.
pub struct Gemm;

/// The arguments that are numbers; inputs are opened by name.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(crate = "forge_sdk_guest::serde")]
pub struct Arguments {
    /// Rows of A and C.
    pub m: u64,
    /// Columns of B and C.
    pub n: u64,
    /// Columns of A, rows of B.
    pub k: u64,
    /// Factor of A B.
    pub alpha: f64,
    /// Factor of C; where it is zero, C is not read.
    pub beta: f64,
}

impl Kernel for Gemm {
    fn execute(task: &Task) -> Result<Fragment, Failure> {
        let given: Arguments = arguments(task)?;
        let at = rectangle(task)?;
        let values = match task.profile.as_str() {
            "dgemm" => tile::<f64, _>(&given, at, open)?,
            "sgemm" => tile::<f32, _>(&given, at, open)?,
            _ => return Err(Failure::Other("no such profile".into())),
        };
        let number = if task.profile == "dgemm" { f64::NUMBER } else { f32::NUMBER };
        Ok(Fragment { parts: vec![Named { name: "c".into(), part: Part::Tile(Tile { at, number, values }) }] })
    }
}

impl Checked for Gemm {
    fn check(task: &Task, found: &Fragment, challenge: &[u8; 32]) -> Result<Verdict, Failure> {
        let given: Arguments = arguments(task)?;
        let at = rectangle(task)?;
        match task.profile.as_str() {
            "dgemm" => check::check::<f64, _>(&given, at, found, challenge, open),
            "sgemm" => check::check::<f32, _>(&given, at, found, challenge, open),
            _ => Err(Failure::Other("no such profile".into())),
        }
    }
}

export_checked_kernel!(Gemm);

/// The bytes of one tile of C, row-major, little-endian. `open` gives the inputs `a`, `b` and `c`.
///
/// **Order**: `alpha * s`, rounded; where beta is not zero, `+ (beta * c)`, each rounded; `s` as in [`product`].
///
/// # Errors
/// `Failure::arguments` where a factor leaves the precision; `Failure::input` where an input is missing or is not the
/// matrix that the arguments describe.
pub fn tile<T: Real, S: Source>(
    given: &Arguments,
    at: Rectangle,
    open: impl Fn(&str) -> Result<S, Failure>,
) -> Result<Vec<u8>, Failure> {
    let (alpha, beta) = (factor::<T>("alpha", given.alpha)?, factor::<T>("beta", given.beta)?);
    let matrix = |name: &str, shape| Matrix::open(open(name)?, name, T::NUMBER, shape);
    let old = if beta == T::ZERO { None } else { Some(old::<T, _>(&matrix("c", (given.m, given.n))?, beta, at)?) };
    let mut bytes = Vec::with_capacity(at.rows as usize * at.columns as usize * size_of::<T>());
    if alpha == T::ZERO {
        let zeros = || core::iter::repeat_n(T::ZERO, at.rows as usize * at.columns as usize);
        old.unwrap_or_else(|| zeros().collect()).iter().for_each(|value| value.write(&mut bytes));
        return Ok(bytes);
    }
    let (a, b) = (matrix("a", (given.m, given.k))?, matrix("b", (given.k, given.n))?);
    let sums = product::multiply::<T, S>(&a, &b, at, given.k)?;
    let cells = sums.rows().flatten().map(|sum| alpha * *sum);
    match old {
        None => cells.for_each(|cell| cell.write(&mut bytes)),
        Some(old) => cells.zip(old).for_each(|(cell, old)| (cell + old).write(&mut bytes)),
    }
    Ok(bytes)
}

/// beta C, where the tile lies.
fn old<T: Real, S: Source>(c: &Matrix<S>, beta: T, at: Rectangle) -> Result<Vec<T>, Failure> {
    let mut values = Vec::with_capacity(at.rows as usize * at.columns as usize);
    let (rows, columns) = (at.row..at.row + u64::from(at.rows), at.column..at.column + u64::from(at.columns));
    c.rows(rows, columns, |_, bytes| values.extend(T::read(bytes).map(|value| beta * value)))?;
    Ok(values)
}

fn factor<T: Real>(name: &str, value: f64) -> Result<T, Failure> {
    let nearest = T::nearest(value);
    let refused = || Failure::Arguments(format!("args.{name}: {value} is not finite in the profile's precision"));
    if nearest.finite() { Ok(nearest) } else { Err(refused()) }
}
