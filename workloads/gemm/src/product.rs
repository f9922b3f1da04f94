//! One tile of A B: panels are read by range, packed and multiplied block by block.
//!
//! **Order**: k in blocks of [`DEPTH`]; within a block, products are added in k order from zero; blocks are added in
//! order. A cell's bits depend on its row of A and its column of B alone, never on the tile it lies in.

use forge_sdk_guest::input::Source;
use forge_sdk_guest::npy::Matrix;
use forge_sdk_guest::{Failure, Rectangle};

use crate::real::{ROWS, Real};

/// Steps of k that are summed from zero before the sum is added: part of the result's definition.
pub const DEPTH: u64 = 256;
/// Rows of packed A that stay in the cache while the columns of B pass: no part of the result.
const ROWS_CACHED: usize = 128;

/// The sums of one tile, row-major, with room up to whole innermost blocks.
pub struct Sums<T> {
    values: Vec<T>,
    stride: usize,
    columns: usize,
}

impl<T: Real> Sums<T> {
    /// The tile's rows, without the room behind them.
    pub fn rows(&self) -> impl Iterator<Item = &[T]> {
        self.values.chunks(self.stride).map(|row| &row[..self.columns])
    }
}

/// The tile `at` of A B, with `depth` columns of A and rows of B.
///
/// # Errors
/// `Failure::input` where a panel cannot be read.
pub fn multiply<T: Real, S: Source>(
    a: &Matrix<S>,
    b: &Matrix<S>,
    at: Rectangle,
    depth: u64,
) -> Result<Sums<T>, Failure> {
    let (rows, columns) = (at.rows as usize, at.columns as usize);
    let (high, stride) = (rows.next_multiple_of(ROWS), columns.next_multiple_of(T::COLUMNS));
    let mut sums = vec![T::ZERO; high * stride];
    let most = usize::try_from(depth.min(DEPTH)).unwrap_or(0);
    let (mut left, mut right) = (vec![T::ZERO; high * most], vec![T::ZERO; stride * most]);
    let mut first = 0;
    while first < depth {
        let steps = first..depth.min(first + DEPTH);
        let count = usize::try_from(steps.end - steps.start).unwrap_or(0);
        a.rows(at.row..at.row + u64::from(at.rows), steps.clone(), |row, bytes| {
            pack_row(&mut left, row, count, bytes)
        })?;
        b.rows(steps.clone(), at.column..at.column + u64::from(at.columns), |step, bytes| {
            pack_step(&mut right, step, count, bytes);
        })?;
        add(&left[..high * count], &right[..stride * count], count, &mut sums, stride);
        first = steps.end;
    }
    sums.truncate(rows * stride);
    Ok(Sums { values: sums, stride, columns })
}

/// A row of A into its place: groups of [`ROWS`] rows, in a group step by step.
fn pack_row<T: Real>(packed: &mut [T], row: usize, count: usize, bytes: &[u8]) {
    let group = &mut packed[row / ROWS * ROWS * count..][..ROWS * count];
    for (step, value) in group.as_chunks_mut::<ROWS>().0.iter_mut().zip(T::read(bytes)) {
        step[row % ROWS] = value;
    }
}

/// A row of B, which is a step of k, into its place: groups of columns, in a group step by step.
fn pack_step<T: Real>(packed: &mut [T], step: usize, count: usize, bytes: &[u8]) {
    let groups = packed.chunks_mut(T::COLUMNS * count);
    for (group, piece) in groups.zip(bytes.chunks(T::COLUMNS * size_of::<T>())) {
        let place = &mut group[step * T::COLUMNS..][..T::COLUMNS];
        place.iter_mut().zip(T::read(piece)).for_each(|(place, value)| *place = value);
    }
}

/// Adds the product of packed panels to the sums.
fn add<T: Real>(a: &[T], b: &[T], count: usize, sums: &mut [T], stride: usize) {
    for (a, sums) in a.chunks(ROWS_CACHED * count).zip(sums.chunks_mut(ROWS_CACHED * stride)) {
        for (column, b) in b.chunks(T::COLUMNS * count).enumerate() {
            for (a, sums) in a.chunks(ROWS * count).zip(sums.chunks_mut(ROWS * stride)) {
                T::add_block(a, b, &mut sums[column * T::COLUMNS..], stride);
            }
        }
    }
}
