//! One part as JSON. Numbers stay numbers; large content is named by digest, size and shape.

use forge_contract::Digest;
use forge_contract::fragment::{Matrix, Number, Part, Rows, Segment, TileView, View};
use serde_json::{Value, json};

use super::mosaic::{Mosaic, MosaicError};
use super::{distribution, npy};

/// Largest matrix shown in full, values.
const MATRIX_SHOWN_MAX: usize = 4096;

/// What the client sees of a part. `unit` is the manifest's unit of its numbers.
///
/// # Errors
/// Tiles that are no matrix.
pub fn describe(name: &str, part: &View<'_>, unit: Option<&str>) -> Result<Value, MosaicError> {
    let mut value = match part {
        View::Tiles(tiles) => matrix_file(name, &Mosaic::new(tiles.iter().copied(), None)?),
        View::Other(part) => other(name, part)?,
    };
    if let (Some(unit), Some(members)) = (unit, value.as_object_mut()) {
        members.insert("unit".into(), unit.into());
    }
    Ok(value)
}

fn other(name: &str, part: &Part) -> Result<Value, MosaicError> {
    Ok(match part {
        Part::Count(n) => json!(n),
        Part::Sum(x) => json!(x),
        Part::Moments(m) => distribution::moments(m),
        Part::Extrema(e) => json!({ "min": e.min, "max": e.max }),
        Part::Histogram(h) => distribution::histogram(h),
        Part::Distribution(d) => distribution::distribution(d),
        Part::MatrixSum(m) => matrix(m),
        Part::Tiles(tiles) => matrix_file(name, &Mosaic::new(tiles.iter().map(TileView::of), None)?),
        Part::Rows(rows) => content(&rows.values, rows_shape(rows)),
        Part::Segments(segments) => film(segments),
        Part::Bytes(bytes) => content(bytes, json!({})),
    })
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

/// What the client sees of a matrix in tiles, whose file is an artifact.
pub fn matrix_file(name: &str, matrix: &Mosaic<'_>) -> Value {
    let (digest, bytes) = npy::digest(matrix);
    json!({
        "kind": "tile",
        "rows": matrix.rows,
        "columns": matrix.columns,
        "dtype": matrix.number,
        "bytes": bytes,
        "digest": digest.to_string(),
        "artifact": artifact_name(name),
    })
}

/// The artifact that holds the file of a tile part.
pub fn artifact_name(part: &str) -> String {
    format!("{part}_npy")
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
    use forge_contract::fragment::Tile;
    use forge_contract::task::Rectangle;

    #[test]
    fn tiles_are_named_by_their_file() {
        let tile = |column: u64| Tile {
            at: Rectangle { row: 0, column, rows: 2, columns: 1 },
            number: Number::Float32,
            values: vec![column as u8; 8],
        };
        let tiles = [tile(1), tile(0)];
        let matrix = Mosaic::new(tiles.iter().map(TileView::of), None).unwrap();
        let shown = matrix_file("c", &matrix);
        let expected = json!({
            "kind": "tile", "rows": 2, "columns": 2, "dtype": "float32", "bytes": 144, "artifact": "c_npy",
            "digest": Digest::of(&npy::file(&matrix)).to_string(),
        });
        assert_eq!(shown, expected);
        assert_eq!(
            describe("c", &View::Tiles(tiles.iter().map(TileView::of).collect()), Some("m")).unwrap()["unit"],
            json!("m")
        );
    }

    #[test]
    fn small_things_are_shown_whole() {
        let describe = |part, unit| super::describe("x", &View::Other(part), unit).unwrap();
        assert_eq!(describe(Part::Count(7), None), json!(7));
        assert_eq!(describe(Part::Sum(0.5), Some("EUR")), json!(0.5));
        let shown = describe(Part::MatrixSum(Matrix { rows: 2, columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] }), None);
        assert_eq!(shown["values"], json!([[1.0, 2.0], [3.0, 4.0]]));
    }
}
