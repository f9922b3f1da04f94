//! One part as JSON. Numbers stay numbers; large content is named by digest, size and shape.

use forge_contract::Digest;
use forge_contract::fragment::{Matrix, Number, Part, Rows, Segment, Tile};
use serde_json::{Value, json};

use super::distribution;

/// Largest matrix shown in full, values.
const MATRIX_SHOWN_MAX: usize = 4096;

/// What the client sees of a part. `unit` is the manifest's unit of its numbers.
pub fn describe(part: &Part, unit: Option<&str>) -> Value {
    let mut value = match part {
        Part::Count(n) => return json!(n),
        Part::Sum(x) => return json!(x),
        Part::Moments(m) => distribution::moments(m),
        Part::Extrema(e) => json!({ "min": e.min, "max": e.max }),
        Part::Histogram(h) => distribution::histogram(h),
        Part::Distribution(d) => distribution::distribution(d),
        Part::MatrixSum(m) => matrix(m),
        Part::Tiles(tiles) => content(&stitched(tiles), tile_shape(tiles)),
        Part::Rows(rows) => content(&rows.values, rows_shape(rows)),
        Part::Segments(segments) => film(segments),
        Part::Bytes(bytes) => content(bytes, json!({})),
    };
    if let (Some(unit), Some(members)) = (unit, value.as_object_mut()) {
        members.insert("unit".into(), unit.into());
    }
    value
}

fn content(bytes: &[u8], mut shape: Value) -> Value {
    if let Some(members) = shape.as_object_mut() {
        members.insert("digest".into(), Digest::of(bytes).to_string().into());
        members.insert("bytes".into(), bytes.len().into());
    }
    shape
}

fn matrix(m: &Matrix) -> Value {
    let bytes: Vec<u8> = m.values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut value = content(&bytes, json!({ "shape": [m.rows, m.columns], "dtype": Number::Float64 }));
    if let (true, Some(members)) = (m.values.len() <= MATRIX_SHOWN_MAX, value.as_object_mut()) {
        let rows: Vec<&[f64]> = m.values.chunks(usize::try_from(m.columns).unwrap_or(1).max(1)).collect();
        members.insert("values".into(), json!(rows));
    }
    value
}

fn rows_shape(rows: &Rows) -> Value {
    let row_bytes = u64::from(rows.columns) * rows.number.bytes();
    let count = (rows.values.len() as u64).checked_div(row_bytes).unwrap_or(0);
    json!({ "shape": [count, rows.columns], "dtype": rows.number })
}

/// Rows and columns of the matrix the tiles cover.
fn extent(tiles: &[Tile]) -> (u64, u64) {
    let rows = tiles.iter().map(|t| t.at.row.saturating_add(u64::from(t.at.rows))).max().unwrap_or(0);
    let columns = tiles.iter().map(|t| t.at.column.saturating_add(u64::from(t.at.columns))).max().unwrap_or(0);
    (rows, columns)
}

fn tile_shape(tiles: &[Tile]) -> Value {
    let (rows, columns) = extent(tiles);
    json!({ "shape": [rows, columns], "dtype": tiles.first().map(|t| t.number), "tiles": tiles.len() })
}

/// The matrix, row-major: every tile's rows copied to their places. Tiles were checked to cover it once.
pub fn stitched(tiles: &[Tile]) -> Vec<u8> {
    let (rows, columns) = extent(tiles);
    let number = tiles.first().map_or(8, |t| t.number.bytes());
    let held: u64 = tiles.iter().map(|t| t.values.len() as u64).sum();
    let size = rows.checked_mul(columns).and_then(|cells| cells.checked_mul(number)).filter(|size| *size == held);
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else { return Vec::new() };
    let mut whole = vec![0u8; size];
    for tile in tiles {
        let width = usize::try_from(u64::from(tile.at.columns) * number).unwrap_or(0);
        for (row, line) in (tile.at.row..).zip(tile.values.chunks(width.max(1))) {
            let start = (row * columns + tile.at.column) * number;
            let place = usize::try_from(start).ok().and_then(|start| whole.get_mut(start..start + line.len()));
            if let Some(place) = place {
                place.copy_from_slice(line);
            }
        }
    }
    whole
}

fn film(segments: &[Segment]) -> Value {
    let whole: Vec<u8> = segments.iter().flat_map(|s| s.media.iter().copied()).collect();
    let (start, end) = (segments.first().map(|s| s.at.start), segments.last().map(|s| s.at.end));
    content(&whole, json!({ "start": start, "end": end, "segments": segments.len() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
    use super::*;
    use forge_contract::task::Rectangle;

    #[test]
    fn tiles_become_the_matrix() {
        // 3 x 3 in tiles of 2 x 2, numbers of 4 bytes: cell (r, c) holds 10 r + c.
        let tile = |row: u64, column: u64, rows: u32, columns: u32| Tile {
            at: Rectangle { row, column, rows, columns },
            number: Number::Int32,
            values: (0..rows)
                .flat_map(|r| (0..columns).flat_map(move |c| ((row as u32 + r) * 10 + column as u32 + c).to_le_bytes()))
                .collect(),
        };
        let tiles = [tile(0, 0, 2, 2), tile(0, 2, 2, 1), tile(2, 0, 1, 2), tile(2, 2, 1, 1)];
        let expected: Vec<u8> = [0u32, 1, 2, 10, 11, 12, 20, 21, 22].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(stitched(&tiles), expected);
        let shown = describe(&Part::Tiles(tiles.to_vec()), Some("m"));
        assert_eq!(shown["shape"], json!([3, 3]));
        assert_eq!(shown["digest"], json!(Digest::of(&expected).to_string()));
        assert_eq!(shown["unit"], json!("m"));
    }

    #[test]
    fn small_things_are_shown_whole() {
        assert_eq!(describe(&Part::Count(7), None), json!(7));
        assert_eq!(describe(&Part::Sum(0.5), Some("EUR")), json!(0.5));
        let shown = describe(&Part::MatrixSum(Matrix { rows: 2, columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] }), None);
        assert_eq!(shown["values"], json!([[1.0, 2.0], [3.0, 4.0]]));
    }
}
