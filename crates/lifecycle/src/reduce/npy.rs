//! A matrix as numpy's `.npy` file, version 1.0: the very bytes that `numpy.save` writes for it.

use forge_contract::Digest;
use forge_contract::array::{ArrayType, npy};

use super::mosaic::Mosaic;

/// Everything before the numbers.
fn header(matrix: &Mosaic<'_>) -> Vec<u8> {
    npy::header(&ArrayType { number: matrix.number, shape: vec![matrix.rows, matrix.columns] })
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
    use forge_contract::fragment::{Number, Tile, TileView};
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
