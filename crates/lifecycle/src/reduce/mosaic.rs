//! Tiles as one matrix: they must cover it, no hole and no overlap, and are then read row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use forge_contract::fragment::{Number, TileView};

/// A matrix in tiles that cover it.
#[derive(Debug)]
pub struct Mosaic<'a> {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// Type of the numbers.
    pub number: Number,
    bands: Vec<Band<'a>>,
}

/// Rows that the same tiles cover, from left to right.
#[derive(Debug)]
struct Band<'a> {
    rows: Range<u64>,
    tiles: Vec<TileView<'a>>,
}

/// Why tiles are no matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MosaicError {
    /// There is none.
    #[error("there is no tile")]
    Empty,
    /// A cell that no tile covers: the first in row order.
    #[error("a hole: no tile covers row {row}, column {column}")]
    Hole {
        /// Row.
        row: u64,
        /// Column.
        column: u64,
    },
    /// A cell that two tiles cover.
    #[error("an overlap: two tiles cover row {row}, column {column}")]
    Overlap {
        /// Row.
        row: u64,
        /// Column.
        column: u64,
    },
    /// A tile that reaches over the matrix' edge.
    #[error("the tile at row {row}, column {column} reaches over the edge of {rows} x {columns}")]
    Outside {
        /// Its first row.
        row: u64,
        /// Its first column.
        column: u64,
        /// Rows of the matrix.
        rows: u64,
        /// Columns of the matrix.
        columns: u64,
    },
    /// A tile whose numbers are of another type than the first one's, or whose bytes are not its cells.
    #[error(
        "the tile at row {row}, column {column} holds {found:?} where the first one holds {expected:?}, or not all its cells"
    )]
    Content {
        /// Its first row.
        row: u64,
        /// Its first column.
        column: u64,
        /// Type found.
        found: Number,
        /// Type of the first tile.
        expected: Number,
    },
}

impl<'a> Mosaic<'a> {
    /// The matrix that these tiles cover; `size` is its rows and columns, or `None` where the tiles themselves say it.
    ///
    /// **Order**: of the tiles does not matter.
    ///
    /// # Errors
    /// The first hole or overlap in row order; a tile that is empty, reaches over the edge or differs in type.
    pub fn new(tiles: impl IntoIterator<Item = TileView<'a>>, size: Option<(u64, u64)>) -> Result<Self, MosaicError> {
        let mut tiles: Vec<TileView<'a>> = tiles.into_iter().collect();
        let number = tiles.first().ok_or(MosaicError::Empty)?.number;
        let (rows, columns) = size.unwrap_or_else(|| extent(&tiles));
        tiles.iter().try_for_each(|tile| check(tile, number, (rows, columns)))?;
        tiles.sort_by_key(|tile| (tile.at.row, tile.at.column));
        let bands = bands(&tiles, rows, columns)?;
        Ok(Self { rows, columns, number, bands })
    }

    /// Size of the numbers, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.rows.saturating_mul(self.columns).saturating_mul(self.number.bytes())
    }

    /// Hands the matrix to `take`, row by row, in pieces from left to right.
    pub fn for_each_piece(&self, mut take: impl FnMut(&[u8])) {
        for band in &self.bands {
            for row in band.rows.clone() {
                for tile in &band.tiles {
                    take(line(tile, row));
                }
            }
        }
    }
}

/// The row of the matrix that lies in a tile.
fn line<'a>(tile: &TileView<'a>, row: u64) -> &'a [u8] {
    let width = u64::from(tile.at.columns) * tile.number.bytes();
    let start = (row - tile.at.row) * width;
    let range = usize::try_from(start).ok().zip(usize::try_from(start + width).ok());
    range.and_then(|(start, end)| tile.values.get(start..end)).unwrap_or_default()
}

fn end_row(tile: &TileView<'_>) -> u64 {
    tile.at.row.saturating_add(tile.at.rows.into())
}

fn end_column(tile: &TileView<'_>) -> u64 {
    tile.at.column.saturating_add(tile.at.columns.into())
}

fn extent(tiles: &[TileView<'_>]) -> (u64, u64) {
    let rows = tiles.iter().map(end_row).max().unwrap_or(0);
    (rows, tiles.iter().map(end_column).max().unwrap_or(0))
}

fn check(tile: &TileView<'_>, number: Number, (rows, columns): (u64, u64)) -> Result<(), MosaicError> {
    let (row, column) = (tile.at.row, tile.at.column);
    if end_row(tile) > rows || end_column(tile) > columns {
        return Err(MosaicError::Outside { row, column, rows, columns });
    }
    let cells = u64::from(tile.at.rows) * u64::from(tile.at.columns);
    if tile.number != number || cells == 0 || cells * number.bytes() != tile.values.len() as u64 {
        return Err(MosaicError::Content { row, column, found: tile.number, expected: number });
    }
    Ok(())
}

/// Sweeps over the rows where tiles begin or end; in between, the tiles at hand must follow each other without a gap.
fn bands<'a>(tiles: &[TileView<'a>], rows: u64, columns: u64) -> Result<Vec<Band<'a>>, MosaicError> {
    let edges: BTreeSet<u64> = tiles.iter().flat_map(|tile| [tile.at.row, end_row(tile)]).chain([0]).collect();
    let mut edges = edges.into_iter().filter(|edge| *edge < rows).peekable();
    let mut coming = tiles.iter().peekable();
    let mut at_hand: BTreeMap<u64, TileView<'a>> = BTreeMap::new();
    let mut bands = Vec::new();
    while let Some(row) = edges.next() {
        at_hand.retain(|_, tile| end_row(tile) > row);
        while let Some(tile) = coming.next_if(|tile| tile.at.row == row) {
            if let Some(other) = at_hand.insert(tile.at.column, *tile) {
                return Err(MosaicError::Overlap { row, column: other.at.column });
            }
        }
        let mut column = 0;
        for tile in at_hand.values() {
            match tile.at.column {
                start if start > column => return Err(MosaicError::Hole { row, column }),
                start if start < column => return Err(MosaicError::Overlap { row, column: start }),
                _ => column = end_column(tile),
            }
        }
        if column < columns {
            return Err(MosaicError::Hole { row, column });
        }
        let end = edges.peek().copied().unwrap_or(rows);
        bands.push(Band { rows: row..end, tiles: at_hand.values().copied().collect() });
    }
    Ok(bands)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
    use super::*;
    use forge_contract::fragment::Tile;
    use forge_contract::task::Rectangle;
    use proptest::prelude::*;

    /// A tile whose cell (r, c) holds 1000 r + c.
    fn tile(row: u64, column: u64, rows: u32, columns: u32) -> Tile {
        let cell = |r: u32, c: u32| ((row as u32 + r) * 1000 + column as u32 + c).to_le_bytes();
        Tile {
            at: Rectangle { row, column, rows, columns },
            number: Number::Int32,
            values: (0..rows).flat_map(|r| (0..columns).flat_map(move |c| cell(r, c))).collect(),
        }
    }

    fn mosaic(tiles: &[Tile], size: Option<(u64, u64)>) -> Result<Mosaic<'_>, MosaicError> {
        Mosaic::new(tiles.iter().map(TileView::of), size)
    }

    /// Cuts a rectangle in two, again and again, where the numbers say.
    fn cut(at: Rectangle, choices: &mut impl Iterator<Item = u32>, tiles: &mut Vec<Tile>) {
        let choice = choices.next().unwrap_or(0);
        let (down, across) = (at.rows > 1 && choice % 3 == 1, at.columns > 1 && choice % 3 == 2);
        if down {
            let first = 1 + (choice / 3) % (at.rows - 1);
            cut(Rectangle { rows: first, ..at }, choices, tiles);
            cut(Rectangle { row: at.row + u64::from(first), rows: at.rows - first, ..at }, choices, tiles);
        } else if across {
            let first = 1 + (choice / 3) % (at.columns - 1);
            cut(Rectangle { columns: first, ..at }, choices, tiles);
            cut(Rectangle { column: at.column + u64::from(first), columns: at.columns - first, ..at }, choices, tiles);
        } else {
            tiles.push(tile(at.row, at.column, at.rows, at.columns));
        }
    }

    proptest! {
        #[test]
        fn any_cut_is_the_whole_and_any_fault_is_found(
            rows in 1u32..30, columns in 1u32..30, choices in prop::collection::vec(any::<u32>(), 0..40), pick: usize,
        ) {
            let whole = tile(0, 0, rows, columns);
            let size = Some((u64::from(rows), u64::from(columns)));
            let mut tiles = Vec::new();
            cut(whole.at, &mut choices.into_iter(), &mut tiles);
            let mut bytes = Vec::new();
            mosaic(&tiles, size).unwrap().for_each_piece(|piece| bytes.extend_from_slice(piece));
            prop_assert_eq!(&bytes, &whole.values);
            prop_assert_eq!(mosaic(&tiles, None).unwrap().bytes(), whole.values.len() as u64);

            let pick = pick % tiles.len();
            let mut lacking = tiles.clone();
            let gone = lacking.remove(pick);
            let hole = MosaicError::Hole { row: gone.at.row, column: gone.at.column };
            prop_assert_eq!(mosaic(&lacking, size).err(), Some(if lacking.is_empty() { MosaicError::Empty } else { hole }));
            let mut twice = tiles.clone();
            twice.push(gone.clone());
            let found = mosaic(&twice, size).err();
            prop_assert_eq!(found, Some(MosaicError::Overlap { row: gone.at.row, column: gone.at.column }));
        }
    }

    #[test]
    fn each_fault_is_named() {
        let size = Some((2, 4));
        let overlap = [tile(0, 0, 2, 3), tile(0, 2, 2, 2)];
        assert_eq!(mosaic(&overlap, size).unwrap_err(), MosaicError::Overlap { row: 0, column: 2 });
        let below = [tile(0, 0, 2, 2), tile(0, 2, 1, 2)];
        assert_eq!(mosaic(&below, size).unwrap_err(), MosaicError::Hole { row: 1, column: 2 });
        let outside = [tile(0, 0, 2, 5)];
        assert!(matches!(mosaic(&outside, size), Err(MosaicError::Outside { .. })));
        let mut other = tile(0, 2, 2, 2);
        other.number = Number::Float32;
        assert!(matches!(mosaic(&[tile(0, 0, 2, 2), other], size), Err(MosaicError::Content { column: 2, .. })));
        assert!(matches!(mosaic(&[tile(0, 0, 0, 4)], None), Err(MosaicError::Content { .. })));
        assert_eq!(mosaic(&[], size).unwrap_err(), MosaicError::Empty);
    }
}
