//! What an earlier stage gave, as a later stage reads it: the canonical bytes of its folded fragment.
//!
//! The encoding is that of the host's crate `forge-contract`, module `fragment`; its first byte is the version.

use crate::{Bucket, input};
use crate::{Distribution, Extrema, Failure, Histogram, Interval, Moments, Number, Rectangle};

const VERSION: u8 = 1;

/// The folded fragment of a stage: its parts by name, in the manifest's order.
#[derive(Debug)]
pub struct Folded<'a> {
    parts: Vec<(&'a str, Part<'a>)>,
}

/// A folded part. Raw content is borrowed from the bytes.
#[derive(Debug)]
pub enum Part<'a> {
    /// Sum of counts.
    Count(u64),
    /// Sum in tree order.
    Sum(f64),
    /// Moments of all values.
    Moments(Moments),
    /// Smallest and largest of all.
    Extrema(Extrema),
    /// Counts of all.
    Histogram(Histogram),
    /// Moments, extrema and histogram of all.
    Distribution(Distribution),
    /// Elementwise sum, row-major.
    MatrixSum {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
        /// `rows * columns` values.
        values: Vec<f64>,
    },
    /// Tiles by unit.
    Tiles(Vec<(Rectangle, Number, &'a [u8])>),
    /// All rows; row-major, little-endian.
    Rows {
        /// First row.
        first: u64,
        /// Columns.
        columns: u32,
        /// Type of the numbers.
        number: Number,
        /// The numbers.
        values: &'a [u8],
    },
    /// Segments by unit.
    Segments(Vec<(Interval, &'a [u8])>),
    /// Bytes of all units, one behind the other.
    Bytes(&'a [u8]),
}

/// The canonical bytes of the stage's folded fragment behind an input, at most `max`.
///
/// # Errors
/// `Failure::input` where there is no such input or it is larger.
pub fn bytes(name: &str, max: u32) -> Result<Vec<u8>, Failure> {
    input::whole(&input::open(name)?, max)
}

impl<'a> Folded<'a> {
    /// Reads canonical bytes.
    ///
    /// # Errors
    /// `Failure::input` where the bytes are no folded fragment.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader { bytes };
        reader.fragment().filter(|_| reader.bytes.is_empty()).ok_or_else(|| {
            Failure::Input("the input of an earlier stage is not the encoding of a folded fragment".into())
        })
    }

    /// The part of this name.
    ///
    /// # Errors
    /// `Failure::input` where the stage has none.
    pub fn part(&self, name: &str) -> Result<&Part<'a>, Failure> {
        let found = self.parts.iter().find(|(other, _)| *other == name);
        found.map(|(_, part)| part).ok_or_else(|| Failure::Input(format!("the earlier stage has no part '{name}'")))
    }
}

/// Reads values in the order they were written; `None` where they are not there.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn fragment(&mut self) -> Option<Folded<'a>> {
        if self.u8()? != VERSION {
            return None;
        }
        let parts = self.list(|r| Some((r.text()?, r.part()?)))?;
        Some(Folded { parts })
    }

    fn part(&mut self) -> Option<Part<'a>> {
        Some(match self.u8()? {
            0 => Part::Count(self.u64()?),
            1 => Part::Sum(self.f64()?),
            2 => Part::Moments(self.moments()?),
            3 => Part::Extrema(self.extrema()?),
            4 => Part::Histogram(self.histogram()?),
            5 => Part::Distribution(Distribution {
                moments: self.moments()?,
                extrema: self.extrema()?,
                histogram: self.histogram()?,
            }),
            6 => {
                let (rows, columns) = (self.u32()?, self.u32()?);
                let cells = usize::try_from(u64::from(rows) * u64::from(columns)).ok()?;
                let cells = (cells <= self.bytes.len() / 8).then_some(cells)?;
                Part::MatrixSum { rows, columns, values: (0..cells).map(|_| self.f64()).collect::<Option<_>>()? }
            }
            7 => Part::Tiles(self.list(|r| Some((r.rectangle()?, r.number()?, r.raw()?)))?),
            8 => Part::Rows { first: self.u64()?, columns: self.u32()?, number: self.number()?, values: self.raw()? },
            9 => Part::Segments(self.list(|r| Some((Interval { start: r.i64()?, end: r.i64()? }, r.raw()?)))?),
            10 => Part::Bytes(self.raw()?),
            _ => return None,
        })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.u64()?).ok()?;
        // Every item has a byte at least: a count alone must not cost memory.
        (count <= self.bytes.len()).then_some(())?;
        (0..count).map(|_| item(self)).collect()
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn u64(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    fn i64(&mut self) -> Option<i64> {
        let zigzag = self.u64()?;
        Some((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
    }

    fn f64(&mut self) -> Option<f64> {
        let (eight, rest) = self.bytes.split_first_chunk::<8>()?;
        self.bytes = rest;
        Some(f64::from_le_bytes(*eight))
    }

    fn raw(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.raw()?).ok()
    }

    fn number(&mut self) -> Option<Number> {
        Some(match self.u8()? {
            0 => Number::Float32,
            1 => Number::Float64,
            2 => Number::Int32,
            3 => Number::Int64,
            _ => return None,
        })
    }

    fn rectangle(&mut self) -> Option<Rectangle> {
        Some(Rectangle { row: self.u64()?, column: self.u64()?, rows: self.u32()?, columns: self.u32()? })
    }

    fn moments(&mut self) -> Option<Moments> {
        Some(Moments { n: self.u64()?, mean: self.f64()?, m2: self.f64()?, m3: self.f64()?, m4: self.f64()? })
    }

    fn extrema(&mut self) -> Option<Extrema> {
        Some(Extrema { min: self.f64()?, max: self.f64()? })
    }

    fn histogram(&mut self) -> Option<Histogram> {
        let mantissa_bits = u8::try_from(self.u64()?).ok()?;
        let mut next = Some(0u32);
        let buckets = self.list(|r| {
            let key = next?.checked_add(r.u32()?)?;
            next = key.checked_add(1);
            Some(Bucket { key, count: r.u64()?.checked_add(1)? })
        })?;
        Some(Histogram { mantissa_bits, buckets })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The byte literal of the host's own test of its encoding.
    #[test]
    fn histograms_are_read() {
        let bytes = [1, 1, 4, b'l', b'o', b's', b's', 4, 4, 2, 3, 0, 0, 0xab, 0x02];
        let folded = Folded::read(&bytes).unwrap();
        let Part::Histogram(histogram) = folded.part("loss").unwrap() else { panic!() };
        let buckets: Vec<(u32, u64)> = histogram.buckets.iter().map(|b| (b.key, b.count)).collect();
        assert_eq!((histogram.mantissa_bits, buckets), (4, vec![(3, 1), (4, 300)]));
        assert!(matches!(folded.part("gain"), Err(Failure::Input(text)) if text.contains("gain")));
    }

    #[test]
    fn every_kind_is_read() {
        let mut bytes = vec![1, 6];
        let double = |x: f64| x.to_le_bytes();
        bytes.extend([1, b'a', 0, 0xac, 0x02]);
        bytes.extend([1, b'b', 1]);
        bytes.extend(double(-1.5));
        bytes.extend([1, b'c', 6, 1, 2]);
        bytes.extend(double(2.0));
        bytes.extend(double(3.0));
        bytes.extend([1, b'd', 7, 1, 5, 6, 1, 2, 0, 8]);
        bytes.extend([9; 8]);
        bytes.extend([1, b'e', 9, 1, 3, 4, 1, 7]);
        bytes.extend([1, b'f', 10, 2, 8, 9]);
        let folded = Folded::read(&bytes).unwrap();
        assert!(matches!(folded.part("a").unwrap(), Part::Count(300)));
        assert!(matches!(folded.part("b").unwrap(), Part::Sum(x) if *x == -1.5));
        assert!(
            matches!(folded.part("c").unwrap(), Part::MatrixSum { rows: 1, columns: 2, values } if *values == [2.0, 3.0])
        );
        let Part::Tiles(tiles) = folded.part("d").unwrap() else { panic!() };
        assert!(matches!(
            tiles.as_slice(),
            [(Rectangle { row: 5, column: 6, rows: 1, columns: 2 }, Number::Float32, [9, ..])]
        ));
        let Part::Segments(segments) = folded.part("e").unwrap() else { panic!() };
        assert!(matches!(segments.as_slice(), [(Interval { start: -2, end: 2 }, [7])]));
        assert!(matches!(folded.part("f").unwrap(), Part::Bytes([8, 9])));
        for end in 0..bytes.len() {
            assert!(Folded::read(&bytes[..end]).is_err(), "cut at {end}");
        }
        bytes.push(0);
        assert!(Folded::read(&bytes).is_err());
    }
}
