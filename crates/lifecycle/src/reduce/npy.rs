//! A matrix as numpy's `.npy` file, version 1.0: the very bytes that `numpy.save` writes for it.
//!
//! Source: "A simple file format for NumPy arrays", NEP 1; padding as in numpy 2's `_write_array_header`.

use forge_contract::Digest;
use forge_contract::fragment::Number;

use super::mosaic::Mosaic;

/// The data begins at a multiple of this many bytes.
const ALIGNMENT: usize = 64;
/// Digits for which numpy leaves room, so that the first dimension may grow in place.
const GROWTH_DIGITS: usize = 21;
/// Magic, version and the header's length.
const PREFIX_BYTES: usize = 10;

/// How numpy spells a type, little-endian.
const fn descr(number: Number) -> &'static str {
    match number {
        Number::Float32 => "<f4",
        Number::Float64 => "<f8",
        Number::Int32 => "<i4",
        Number::Int64 => "<i8",
    }
}

/// Everything before the numbers.
fn header(matrix: &Mosaic<'_>) -> Vec<u8> {
    let Mosaic { rows, columns, number, .. } = matrix;
    let dictionary =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}", descr(*number));
    let growth = GROWTH_DIGITS.saturating_sub(rows.to_string().len());
    let unpadded = PREFIX_BYTES + dictionary.len() + growth + 1;
    let length = unpadded + ALIGNMENT - unpadded % ALIGNMENT - PREFIX_BYTES;
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    // Two numbers of 20 digits at most: far below 65,536.
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = length - 1).bytes());
    bytes
}

/// The file.
#[must_use]
pub fn file(matrix: &Mosaic<'_>) -> Vec<u8> {
    let mut bytes = header(matrix);
    bytes.reserve_exact(usize::try_from(matrix.bytes()).unwrap_or(0));
    matrix.for_each_piece(|piece| bytes.extend_from_slice(piece));
    bytes
}

/// Digest and size of the file, which is not made.
#[must_use]
pub fn digest(matrix: &Mosaic<'_>) -> (Digest, u64) {
    let header = header(matrix);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header);
    matrix.for_each_piece(|piece| {
        hasher.update(piece);
    });
    (Digest::from_bytes(*hasher.finalize().as_bytes()), header.len() as u64 + matrix.bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::fragment::{Tile, TileView};
    use forge_contract::task::Rectangle;

    #[test]
    fn the_bytes_are_those_of_numpy() {
        let at = Rectangle { row: 0, column: 0, rows: 2, columns: 3 };
        let values: Vec<u8> = (0..6u8).flat_map(|n| f64::from(n).to_le_bytes()).collect();
        let tile = Tile { at, number: Number::Float64, values: values.clone() };
        let matrix = Mosaic::new([TileView::of(&tile)], None).unwrap();
        // numpy.save(f, numpy.arange(6.0).reshape(2, 3)), numpy 2.4
        let mut expected = b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend(values);
        assert_eq!(file(&matrix), expected);
        assert_eq!(digest(&matrix), (Digest::of(&expected), expected.len() as u64));
    }
}
