//! Canonical bytes of a fragment.
//!
//! ```text
//! fragment  = version(1)=1  count  named*
//! named     = text name   kind(1)   body
//! body by kind:
//!   0 count         u
//!   1 sum           f
//!   2 moments       u n, f mean, f m2, f m3, f m4
//!   3 extrema       f min, f max
//!   4 histogram     u mantissa_bits, count, (u key - previous key - 1 (first: key), u count - 1)*
//!   5 distribution  moments, extrema, histogram
//!   6 matrix sum    u rows, u columns, f*
//!   7 tiles         count, (u row, u column, u rows, u columns, number(1), bytes)*
//!   8 rows          u first, u columns, number(1), bytes
//!   9 segments      count, (i start, i end, bytes)*
//!  10 bytes         bytes
//! ```
//! `u`, `i`, `f`, text, bytes and count as in [`crate::canon`]. Decoding refuses every byte string that encoding
//! would not have written.

use super::{Distribution, Extrema, Fragment, Histogram, Matrix, Moments, Named, Number, Part, Rows, Segment, Tile};
use crate::canon::{CanonError, Reader, Writer};
use crate::task::{Interval, Rectangle};

const VERSION: u8 = 1;
/// The number of the kind whose content is borrowed.
const TILES: u8 = 7;
/// Most parts of a fragment, as of a stage: a part takes far more memory than the few bytes that claim it.
const PARTS_MAX: u64 = 64;

impl Fragment {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(self.parts.iter().map(|n| size_hint(&n.part)).sum::<usize>() + 16);
        w.u8(VERSION);
        w.u64(self.parts.len() as u64);
        for named in &self.parts {
            w.str(&named.name);
            encode_part(&named.part, &mut w);
        }
        w.into_bytes()
    }

    /// Reads canonical bytes. Structural rules are checked apart (`Fragment::check`).
    ///
    /// # Errors
    /// `CanonError` where the bytes are not what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CanonError> {
        let mut r = Reader::new(bytes);
        let parts = read_parts(&mut r, decode_part)?;
        let parts = parts.into_iter().map(|(name, part)| Named { name: name.to_owned(), part }).collect();
        r.finish()?;
        Ok(Self { parts })
    }
}

/// A part as it lies in canonical bytes: tiles, which are large, are borrowed.
#[derive(Debug)]
pub enum View<'a> {
    /// The tiles of a tile part.
    Tiles(Vec<TileView<'a>>),
    /// Any other part.
    Other(Part),
}

/// A tile as it lies in canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileView<'a> {
    /// Its place.
    pub at: Rectangle,
    /// Type of its numbers.
    pub number: Number,
    /// Row-major, little-endian.
    pub values: &'a [u8],
}

impl<'a> TileView<'a> {
    /// A tile, borrowed.
    #[must_use]
    pub fn of(tile: &'a Tile) -> Self {
        Self { at: tile.at, number: tile.number, values: &tile.values }
    }
}

/// Reads canonical bytes as [`Fragment::decode`] does, without copying tiles: the parts with their names, in order.
///
/// # Errors
/// `CanonError` where the bytes are not what `encode` writes.
pub fn view(bytes: &[u8]) -> Result<Vec<(&str, View<'_>)>, CanonError> {
    let mut r = Reader::new(bytes);
    let parts =
        read_parts(&mut r, |r| if r.peek() == Some(TILES) { view_tiles(r) } else { decode_part(r).map(View::Other) })?;
    r.finish()?;
    Ok(parts)
}

fn view_tiles<'a>(r: &mut Reader<'a>) -> Result<View<'a>, CanonError> {
    r.u8()?;
    let count = r.count(6)?;
    Ok(View::Tiles(decode_list(count, r, view_tile)?))
}

fn read_parts<'a, T>(
    r: &mut Reader<'a>,
    mut part: impl FnMut(&mut Reader<'a>) -> Result<T, CanonError>,
) -> Result<Vec<(&'a str, T)>, CanonError> {
    if r.u8()? != VERSION {
        return Err(CanonError::Invalid { what: "fragment version", at: 0 });
    }
    let at = r.at();
    let count = r.count(3)?;
    if count as u64 > PARTS_MAX {
        return Err(CanonError::TooMany { at, found: count as u64, max: PARTS_MAX });
    }
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        parts.push((r.str()?, part(r)?));
    }
    Ok(parts)
}

fn size_hint(part: &Part) -> usize {
    match part {
        Part::Histogram(h) | Part::Distribution(Distribution { histogram: h, .. }) => 80 + h.buckets.len() * 3,
        Part::MatrixSum(m) => 16 + m.values.len() * 8,
        Part::Tiles(tiles) => tiles.iter().map(|t| 32 + t.values.len()).sum(),
        Part::Rows(rows) => 32 + rows.values.len(),
        Part::Segments(segments) => segments.iter().map(|s| 32 + s.media.len()).sum(),
        Part::Bytes(bytes) => 16 + bytes.len(),
        Part::Count(_) | Part::Sum(_) | Part::Moments(_) | Part::Extrema(_) => 64,
    }
}

fn encode_part(part: &Part, w: &mut Writer) {
    match part {
        Part::Count(n) => {
            w.u8(0);
            w.u64(*n);
        }
        Part::Sum(x) => {
            w.u8(1);
            w.f64(*x);
        }
        Part::Moments(m) => {
            w.u8(2);
            encode_moments(m, w);
        }
        Part::Extrema(e) => {
            w.u8(3);
            encode_extrema(e, w);
        }
        Part::Histogram(h) => {
            w.u8(4);
            encode_histogram(h, w);
        }
        Part::Distribution(d) => {
            w.u8(5);
            encode_moments(&d.moments, w);
            encode_extrema(&d.extrema, w);
            encode_histogram(&d.histogram, w);
        }
        Part::MatrixSum(m) => {
            w.u8(6);
            w.u64(u64::from(m.rows));
            w.u64(u64::from(m.columns));
            m.values.iter().for_each(|v| w.f64(*v));
        }
        Part::Tiles(tiles) => {
            w.u8(TILES);
            w.u64(tiles.len() as u64);
            tiles.iter().for_each(|t| encode_tile(t, w));
        }
        Part::Rows(rows) => {
            w.u8(8);
            w.u64(rows.first);
            w.u64(u64::from(rows.columns));
            w.u8(number_code(rows.number));
            w.bytes(&rows.values);
        }
        Part::Segments(segments) => {
            w.u8(9);
            w.u64(segments.len() as u64);
            for segment in segments {
                w.i64(segment.at.start);
                w.i64(segment.at.end);
                w.bytes(&segment.media);
            }
        }
        Part::Bytes(bytes) => {
            w.u8(10);
            w.bytes(bytes);
        }
    }
}

fn encode_moments(m: &Moments, w: &mut Writer) {
    w.u64(m.n);
    for value in [m.mean, m.m2, m.m3, m.m4] {
        w.f64(value);
    }
}

fn encode_extrema(e: &Extrema, w: &mut Writer) {
    w.f64(e.min);
    w.f64(e.max);
}

fn encode_histogram(h: &Histogram, w: &mut Writer) {
    w.u64(u64::from(h.mantissa_bits));
    w.u64(h.buckets.len() as u64);
    let mut next = 0u32;
    for (key, count) in &h.buckets {
        w.u64(u64::from(key.wrapping_sub(next)));
        w.u64(count.wrapping_sub(1));
        next = key.wrapping_add(1);
    }
}

fn encode_tile(t: &Tile, w: &mut Writer) {
    w.u64(t.at.row);
    w.u64(t.at.column);
    w.u64(u64::from(t.at.rows));
    w.u64(u64::from(t.at.columns));
    w.u8(number_code(t.number));
    w.bytes(&t.values);
}

const fn number_code(number: Number) -> u8 {
    match number {
        Number::Float32 => 0,
        Number::Float64 => 1,
        Number::Int32 => 2,
        Number::Int64 => 3,
    }
}

fn decode_part(r: &mut Reader<'_>) -> Result<Part, CanonError> {
    let at = r.at();
    Ok(match r.u8()? {
        0 => Part::Count(r.u64()?),
        1 => Part::Sum(r.f64()?),
        2 => Part::Moments(decode_moments(r)?),
        3 => Part::Extrema(decode_extrema(r)?),
        4 => Part::Histogram(decode_histogram(r)?),
        5 => Part::Distribution(Distribution {
            moments: decode_moments(r)?,
            extrema: decode_extrema(r)?,
            histogram: decode_histogram(r)?,
        }),
        6 => Part::MatrixSum(decode_matrix(r)?),
        TILES => {
            let count = r.count(6)?;
            Part::Tiles(decode_list(count, r, decode_tile)?)
        }
        8 => Part::Rows(Rows {
            first: r.u64()?,
            columns: r.u32()?,
            number: decode_number(r)?,
            values: r.bytes()?.to_vec(),
        }),
        9 => {
            let count = r.count(3)?;
            Part::Segments(decode_list(count, r, decode_segment)?)
        }
        10 => Part::Bytes(r.bytes()?.to_vec()),
        _ => return Err(CanonError::Invalid { what: "part kind", at }),
    })
}

/// `count` items, their memory reserved once: a list that grows holds up to three times as much.
fn decode_list<'a, T>(
    count: usize,
    r: &mut Reader<'a>,
    item: impl Fn(&mut Reader<'a>) -> Result<T, CanonError>,
) -> Result<Vec<T>, CanonError> {
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(item(r)?);
    }
    Ok(items)
}

fn decode_moments(r: &mut Reader<'_>) -> Result<Moments, CanonError> {
    Ok(Moments { n: r.u64()?, mean: r.f64()?, m2: r.f64()?, m3: r.f64()?, m4: r.f64()? })
}

fn decode_extrema(r: &mut Reader<'_>) -> Result<Extrema, CanonError> {
    Ok(Extrema { min: r.f64()?, max: r.f64()? })
}

fn decode_histogram(r: &mut Reader<'_>) -> Result<Histogram, CanonError> {
    let at = r.at();
    let mantissa_bits = u8::try_from(r.u64()?).map_err(|_| CanonError::Invalid { what: "mantissa bits", at })?;
    let count = r.count(2)?;
    let mut buckets = Vec::with_capacity(count);
    let mut next = 0u32;
    for index in 0..count {
        let at = r.at();
        let key = next.checked_add(r.u32()?).ok_or(CanonError::Invalid { what: "bucket key", at })?;
        let number = r.u64()?.checked_add(1).ok_or(CanonError::Invalid { what: "bucket count", at })?;
        buckets.push((key, number));
        let last = index + 1 == count;
        next = match key.checked_add(1) {
            Some(next) => next,
            None if last => key,
            None => return Err(CanonError::Invalid { what: "bucket key", at }),
        };
    }
    Ok(Histogram { mantissa_bits, buckets })
}

fn decode_matrix(r: &mut Reader<'_>) -> Result<Matrix, CanonError> {
    let at = r.at();
    let (rows, columns) = (r.u32()?, r.u32()?);
    let cells = u64::from(rows) * u64::from(columns);
    let max = (r.remaining() / 8) as u64;
    if cells > max {
        return Err(CanonError::TooMany { at, found: cells, max });
    }
    let count = usize::try_from(cells).map_err(|_| CanonError::TooMany { at, found: cells, max })?;
    let values = decode_list(count, r, |r| r.f64())?;
    Ok(Matrix { rows, columns, values })
}

fn decode_tile(r: &mut Reader<'_>) -> Result<Tile, CanonError> {
    let TileView { at, number, values } = view_tile(r)?;
    Ok(Tile { at, number, values: values.to_vec() })
}

fn view_tile<'a>(r: &mut Reader<'a>) -> Result<TileView<'a>, CanonError> {
    Ok(TileView {
        at: Rectangle { row: r.u64()?, column: r.u64()?, rows: r.u32()?, columns: r.u32()? },
        number: decode_number(r)?,
        values: r.bytes()?,
    })
}

fn decode_segment(r: &mut Reader<'_>) -> Result<Segment, CanonError> {
    Ok(Segment { at: Interval { start: r.i64()?, end: r.i64()? }, media: r.bytes()?.to_vec() })
}

fn decode_number(r: &mut Reader<'_>) -> Result<Number, CanonError> {
    let at = r.at();
    match r.u8()? {
        0 => Ok(Number::Float32),
        1 => Ok(Number::Float64),
        2 => Ok(Number::Int32),
        3 => Ok(Number::Int64),
        _ => Err(CanonError::Invalid { what: "number type", at }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::fragment;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_view_borrows_tiles_and_reads_the_rest() {
        let tile = Tile {
            at: Rectangle { row: 1, column: 2, rows: 1, columns: 3 },
            number: Number::Int32,
            values: vec![7; 12],
        };
        let parts =
            [("n", Part::Count(9)), ("c", Part::Tiles(vec![tile.clone(), tile.clone()])), ("s", Part::Sum(0.5))];
        let named = |(name, part): (&str, Part)| Named { name: name.into(), part };
        let bytes = Fragment { parts: parts.map(named).into() }.encode();
        let views = view(&bytes).unwrap();
        assert_eq!(views.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["n", "c", "s"]);
        assert!(
            matches!(views.as_slice(), [(_, View::Other(Part::Count(9))), (_, View::Tiles(tiles)), _] if **tiles == [TileView::of(&tile); 2])
        );
        assert!(view(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn golden_bytes() {
        let fragment = Fragment {
            parts: vec![Named {
                name: "loss".into(),
                part: Part::Histogram(Histogram { mantissa_bits: 4, buckets: vec![(3, 1), (4, 300)] }),
            }],
        };
        let bytes = [1, 1, 4, b'l', b'o', b's', b's', 4, 4, 2, 3, 0, 0, 0xab, 0x02];
        assert_eq!(fragment.encode(), bytes);
    }

    proptest! {
        #[test]
        fn round_trip(fragment in fragment()) {
            let bytes = fragment.encode();
            prop_assert_eq!(Fragment::decode(&bytes).unwrap(), fragment);
        }

        #[test]
        fn foreign_bytes_decode_only_to_what_encodes_to_them(mut bytes in fragment().prop_map(|f| f.encode()), at: usize, with: u8) {
            let at = at % bytes.len();
            *bytes.get_mut(at).unwrap() = with;
            if let Ok(fragment) = Fragment::decode(&bytes) {
                prop_assert_eq!(fragment.encode(), bytes);
            }
        }

        #[test]
        fn cut_bytes_are_refused(fragment in fragment(), cut: usize) {
            let bytes = fragment.encode();
            let cut = cut % bytes.len();
            prop_assert!(Fragment::decode(bytes.get(..cut).unwrap()).is_err());
        }
    }
}
