//! Matrices in numpy's `.npy` files, read by rows and columns.
//!
//! Source: "A simple file format for NumPy arrays", NEP 1, with versions 2.0 and 3.0 of its header.

use core::fmt;
use core::ops::Range;

use crate::input::Source;
use crate::{Failure, Number};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header read, bytes: numpy writes 118 for a matrix and refuses to read more than 10,000.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes of the first read: the whole header of every matrix that numpy wrote.
const FIRST_READ: u32 = 256;
/// Bytes read at once where rows lie close to each other: little enough to stay in a core's cache.
const READ_BYTES_MAX: u64 = 64 << 10;
/// Longest gap between rows that is read with them, bytes, if it is no longer than they are: moving it costs no more
/// than another read, and a large input is fetched and verified by more than that anyway.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// What a file's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the numbers as numpy spells it (`<f8`).
    pub descr: String,
    /// Whether columns lie one behind the other.
    pub fortran_order: bool,
    /// Length of each dimension.
    pub shape: Vec<u64>,
    /// Offset of the first number, bytes.
    pub data: u64,
}

/// Why a file is not the matrix that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NpyError {
    /// It does not begin as `.npy` files do.
    Magic,
    /// A version of the format that is not known.
    Version(u8, u8),
    /// The header is longer than what is read.
    HeaderLength(u64),
    /// The header ends before it says it does, or is not the dictionary that numpy writes.
    Header(&'static str),
    /// Numbers of another type.
    Descr {
        /// Type found.
        found: String,
        /// Type expected.
        expected: &'static str,
    },
    /// Columns lie one behind the other.
    Fortran {
        /// Type expected, for the fix.
        expected: &'static str,
    },
    /// Another shape.
    Shape {
        /// Shape found.
        found: Vec<u64>,
        /// Rows and columns expected.
        expected: (u64, u64),
    },
    /// More or fewer bytes than header and shape give.
    Size {
        /// Bytes of the file.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
}

impl fmt::Display for NpyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "it is no .npy file: it does not begin with \\x93NUMPY; write it with numpy.save"),
            Self::Version(major, minor) => {
                write!(
                    f,
                    "version {major}.{minor} of the .npy format, expected 1.0, 2.0 or 3.0; write it with numpy.save"
                )
            }
            Self::HeaderLength(found) => {
                write!(f, "a header of {found} bytes, at most {HEADER_BYTES_MAX} are read; write it with numpy.save")
            }
            Self::Header(what) => write!(f, "a header that {what}; write it with numpy.save"),
            Self::Descr { found, expected } => write!(
                f,
                "numbers of type '{found}', expected '{expected}'; convert: a = np.ascontiguousarray(a, dtype='{expected}')"
            ),
            Self::Fortran { expected } => write!(
                f,
                "fortran_order True, expected False (row-major); convert: a = np.ascontiguousarray(a, dtype='{expected}')"
            ),
            Self::Shape { found, expected: (rows, columns) } => {
                write!(
                    f,
                    "shape {}, expected ({rows}, {columns}); reshape the array or correct the arguments",
                    tuple(found)
                )
            }
            Self::Size { found, expected } => {
                write!(
                    f,
                    "{found} bytes, expected {expected} by its header and shape; it was cut or appended to: save it again"
                )
            }
        }
    }
}

fn tuple(shape: &[u64]) -> String {
    let items: Vec<String> = shape.iter().take(8).map(u64::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let more = if shape.len() > items.len() { ", ..." } else { "" };
    format!("({}{comma}{more})", items.join(", "))
}

/// How numpy spells a type, little-endian.
#[must_use]
pub const fn descr(number: Number) -> &'static str {
    match number {
        Number::Float32 => "<f4",
        Number::Float64 => "<f8",
        Number::Int32 => "<i4",
        Number::Int64 => "<i8",
    }
}

/// Bytes of one number.
#[must_use]
pub const fn size_of(number: Number) -> u64 {
    match number {
        Number::Float32 | Number::Int32 => 4,
        Number::Float64 | Number::Int64 => 8,
    }
}

impl Header {
    /// Reads the header at the beginning of a file.
    ///
    /// # Errors
    /// `Magic`, `Version`, `HeaderLength`, `Header`.
    pub fn parse(start: &[u8]) -> Result<Self, NpyError> {
        let (length, at) = Self::length(start)?;
        let cut = NpyError::Header("ends before it says it does");
        let data = at + length;
        let end = usize::try_from(data).map_err(|_| cut.clone())?;
        let text = start.get(usize::try_from(at).map_err(|_| cut.clone())?..end).ok_or_else(|| cut.clone())?;
        let text = core::str::from_utf8(text).map_err(|_| NpyError::Header("is not text"))?;
        let (descr, fortran_order, shape) = dictionary(text).map_err(NpyError::Header)?;
        Ok(Self { descr, fortran_order, shape, data })
    }

    /// Length of the dictionary and where it begins.
    fn length(start: &[u8]) -> Result<(u64, u64), NpyError> {
        let rest = start.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
        let cut = NpyError::Header("ends before it says it does");
        let (length, at) = match rest {
            [1, 0, a, b, ..] => (u32::from(u16::from_le_bytes([*a, *b])), 10),
            [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]), 12),
            [1..=3, 0, ..] | [] | [_] => return Err(cut),
            [major, minor, ..] => return Err(NpyError::Version(*major, *minor)),
        };
        if length > HEADER_BYTES_MAX { Err(NpyError::HeaderLength(length.into())) } else { Ok((length.into(), at)) }
    }
}

/// The three entries of a header's dictionary, in any order, each once.
fn dictionary(text: &str) -> Result<(String, bool, Vec<u64>), &'static str> {
    const WRONG: &str = "is not the dictionary of descr, fortran_order and shape";
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let mut rest = text.trim_ascii().strip_prefix('{').ok_or(WRONG)?.trim_ascii_start();
    while !rest.starts_with('}') {
        let (key, after) = quoted(rest).ok_or(WRONG)?;
        rest = after.trim_ascii_start().strip_prefix(':').ok_or(WRONG)?.trim_ascii_start();
        rest = match key {
            "descr" if descr.is_none() => {
                if rest.starts_with('[') {
                    return Err("describes records with fields, where plain numbers are expected");
                }
                let (value, after) = quoted(rest).ok_or(WRONG)?;
                descr = Some(value.to_owned());
                after
            }
            "fortran_order" if fortran.is_none() => {
                let (value, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).ok_or(WRONG)?);
                fortran = Some(match value {
                    "True" => true,
                    "False" => false,
                    _ => return Err(WRONG),
                });
                after
            }
            "shape" if shape.is_none() => {
                let (value, after) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or(WRONG)?;
                shape = Some(numbers(value).ok_or(WRONG)?);
                after
            }
            _ => return Err(WRONG),
        };
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
        if rest.is_empty() {
            return Err(WRONG);
        }
    }
    match (rest, descr, fortran, shape) {
        ("}", Some(descr), Some(fortran), Some(shape)) => Ok((descr, fortran, shape)),
        _ => Err(WRONG),
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text.get(1..)?.split_once(quote).filter(|(inside, _)| inside.len() <= 32)
}

fn numbers(tuple: &str) -> Option<Vec<u64>> {
    let tuple = tuple.trim_ascii();
    let items = tuple.strip_suffix(',').unwrap_or(tuple);
    if items.is_empty() {
        return tuple.is_empty().then(Vec::new);
    }
    items.split(',').map(|item| item.trim_ascii().parse().ok()).collect()
}

/// A row-major matrix in a `.npy` file.
///
/// **Units**: rows, columns; offsets in bytes.
#[derive(Debug)]
pub struct Matrix<S> {
    source: S,
    data: u64,
    columns: u64,
    number: u64,
}

impl<S: Source> Matrix<S> {
    /// The matrix in `source`, which must have this type and this shape. `name` is how the contract calls it.
    ///
    /// # Errors
    /// `Failure::input` with what was found, what was expected, and the fix.
    pub fn open(source: S, name: &str, number: Number, (rows, columns): (u64, u64)) -> Result<Self, Failure> {
        let refused = |error: NpyError| Failure::Input(format!("input '{name}': {error}"));
        let mut start = source.read(0, FIRST_READ)?;
        if let Ok((length, at)) = Header::length(&start)
            && length + at > start.len() as u64
        {
            start = source.read(0, u32::try_from(length + at).unwrap_or(HEADER_BYTES_MAX))?;
        }
        let header = Header::parse(&start).map_err(refused)?;
        let data = check(&header, number, (rows, columns), source.size()).map_err(refused)?;
        Ok(Self { source, data, columns, number: size_of(number) })
    }

    /// Hands the rows of a block to `visit` in order, each with its place in the block and its bytes.
    ///
    /// # Errors
    /// `Failure::input` where the block reaches past the end.
    pub fn rows(
        &self,
        rows: Range<u64>,
        columns: Range<u64>,
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<(), Failure> {
        let past = || Failure::Input("a block beyond the matrix".into());
        let width = columns.end.checked_sub(columns.start).map(|width| width * self.number);
        let width = width.filter(|width| *width > 0 && columns.end <= self.columns).ok_or_else(past)?;
        let line = usize::try_from(width).map_err(|_| past())?;
        let stride = self.columns * self.number;
        let close = stride - width <= width.min(GAP_BYTES_MAX);
        let together = if close { (READ_BYTES_MAX / stride).max(1) } else { 1 };
        let (mut row, mut place) = (rows.start, 0);
        while row < rows.end {
            let count = together.min(rows.end - row);
            let offset = self.data + (row * self.columns + columns.start) * self.number;
            let wanted = (count - 1) * stride + width;
            let bytes = self.source.read(offset, u32::try_from(wanted).map_err(|_| past())?)?;
            if bytes.len() as u64 != wanted {
                return Err(past());
            }
            // A single row may be part of one longer than memory.
            for one in bytes.chunks(usize::try_from(stride).unwrap_or(usize::MAX)) {
                visit(place, &one[..line]);
                place += 1;
            }
            row += count;
        }
        Ok(())
    }
}

/// The offset of the first number, once type, order, shape and size are those expected.
fn check(header: &Header, number: Number, (rows, columns): (u64, u64), size: u64) -> Result<u64, NpyError> {
    let expected = descr(number);
    if header.descr != expected {
        let found: String = header.descr.chars().take(32).collect();
        return Err(NpyError::Descr { found, expected });
    }
    if header.shape != [rows, columns] {
        return Err(NpyError::Shape { found: header.shape.clone(), expected: (rows, columns) });
    }
    if header.fortran_order {
        return Err(NpyError::Fortran { expected });
    }
    let bytes = rows.checked_mul(columns).and_then(|cells| cells.checked_mul(size_of(number)));
    let total = bytes.and_then(|bytes| bytes.checked_add(header.data)).unwrap_or(u64::MAX);
    if total == size { Ok(header.data) } else { Err(NpyError::Size { found: size, expected: total }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use core::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A file as numpy writes it: version 1.0, padded to a multiple of 64 bytes.
    fn file(dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let padding = 64 - (10 + dictionary.len() + 1) % 64;
        let length = u16::try_from(dictionary.len() + padding + 1).unwrap();
        bytes.extend([1, 0]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(dictionary.bytes());
        bytes.extend(core::iter::repeat_n(b' ', padding));
        bytes.push(b'\n');
        bytes.extend(data);
        bytes
    }

    const GOOD: &str = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }";

    fn open(bytes: &[u8]) -> Result<Matrix<&[u8]>, String> {
        Matrix::open(bytes, "a", Number::Float64, (2, 3)).map_err(|failure| match failure {
            Failure::Input(text) => text,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn blocks_are_read_by_rows_and_columns() {
        let data: Vec<u8> = (0..6u8).flat_map(|n| f64::from(n).to_le_bytes()).collect();
        for dictionary in [GOOD, "{\"shape\":(2,3),\"descr\":\"<f8\",\"fortran_order\":False}"] {
            let bytes = file(dictionary, &data);
            let matrix = open(&bytes).unwrap();
            let block = |rows, columns| {
                let mut found = Vec::new();
                matrix.rows(rows, columns, |place, row| {
                    let numbers = row.as_chunks::<8>().0.iter().map(|n| f64::from_le_bytes(*n)).collect::<Vec<_>>();
                    found.push((place, numbers));
                })?;
                Ok::<_, Failure>(found)
            };
            assert_eq!(block(0..2, 1..3).unwrap(), [(0, vec![1.0, 2.0]), (1, vec![4.0, 5.0])]);
            assert_eq!(block(1..2, 0..3).unwrap(), [(0, vec![3.0, 4.0, 5.0])]);
            assert_eq!(block(0..2, 0..3).unwrap().len(), 2);
            assert!(block(0..3, 0..3).is_err());
            assert!(block(0..1, 2..4).is_err());
        }
    }

    /// Bytes that count how often they are read.
    struct Counted<'a>(&'a [u8], Rc<Cell<usize>>);

    impl Source for Counted<'_> {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Failure> {
            self.1.set(self.1.get() + 1);
            self.0.read(offset, len)
        }
    }

    #[test]
    fn rows_close_to_each_other_come_with_one_read() {
        // 20 rows of so many columns, of which so many are wanted.
        for (columns, wanted, reads) in [
            (1000, 1000, 3),  // One behind the other, eight at a time.
            (1000, 500, 3),   // A gap as long as the row.
            (1000, 499, 20),  // A longer one.
            (2000, 1488, 5),  // 4 KiB of gap.
            (2000, 1487, 20), // More.
            (9000, 9000, 20), // Each row is more than is read at once.
        ] {
            let cells: Vec<u8> = (0..20 * columns).flat_map(|n| f64::from(n).to_le_bytes()).collect();
            let shape = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': (20, {columns}), }}");
            let (bytes, count) = (file(&shape, &cells), Rc::new(Cell::new(0)));
            let source = Counted(&bytes, Rc::clone(&count));
            let matrix = Matrix::open(source, "a", Number::Float64, (20, u64::from(columns))).unwrap();
            for first in [0, columns - wanted] {
                count.set(0);
                let mut rows = 0;
                let across = u64::from(first)..u64::from(first + wanted);
                let visit = |place: usize, row: &[u8]| {
                    let number = |at: usize| f64::from_le_bytes(row.as_chunks::<8>().0[at]);
                    let start = f64::from(u32::try_from(place).unwrap() * columns + first);
                    assert_eq!((place, row.len()), (rows, wanted as usize * 8));
                    assert_eq!((number(0), number(wanted as usize - 1)), (start, start + f64::from(wanted - 1)));
                    rows += 1;
                };
                matrix.rows(0..20, across, visit).unwrap();
                assert_eq!((rows, count.get()), (20, reads), "{wanted} of {columns}");
            }
        }
    }

    #[test]
    fn long_headers_of_later_versions_are_read() {
        let mut bytes = MAGIC.to_vec();
        let text = format!("{GOOD}{}\n", " ".repeat(1000));
        bytes.extend([3, 0]);
        bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend(text.bytes());
        bytes.extend([0; 48]);
        open(&bytes).unwrap();
    }

    #[test]
    fn what_is_another_thing_is_named_with_the_fix() {
        let data = [0u8; 48];
        let with = |from: &str, to: &str| open(&file(&GOOD.replace(from, to), &data)).unwrap_err();
        for (found, pieces) in [
            (with("<f8", ">f8"), ["'>f8'", "np.ascontiguousarray(a, dtype='<f8')"]),
            (with("<f8", "<f4"), ["'<f4'", "expected '<f8'"]),
            (with("False", "True"), ["fortran_order True", "np.ascontiguousarray(a, dtype='<f8')"]),
            (with("(2, 3)", "(3, 2)"), ["shape (3, 2)", "expected (2, 3)"]),
            (with("(2, 3)", "(6,)"), ["shape (6,)", "reshape"]),
            (with("(2, 3)", "()"), ["shape ()", "reshape"]),
            (with("'<f8'", "[('x', '<f8')]"), ["records with fields", "numpy.save"]),
            (with("'shape'", "'form'"), ["dictionary of descr", "numpy.save"]),
            (with("}", ""), ["dictionary of descr", "numpy.save"]),
            (with(", }", ", 'shape': (2, 3)}"), ["dictionary of descr", "numpy.save"]),
            (with("(2, 3)", "(2, -3)"), ["dictionary of descr", "numpy.save"]),
            (open(&file(GOOD, &data[..40])).unwrap_err(), ["168 bytes", "expected 176"]),
            (open(&file(GOOD, &[0; 49])).unwrap_err(), ["177 bytes", "expected 176"]),
            (open(b"PK\x03\x04").unwrap_err(), ["no .npy file", "numpy.save"]),
            (open(b"").unwrap_err(), ["no .npy file", "numpy.save"]),
            (open(b"\x93NUMPY\x04\0\0\0").unwrap_err(), ["version 4.0", "expected 1.0"]),
            (open(b"\x93NUMPY\x02\0\xff\xff\xff\xff").unwrap_err(), ["a header of 4294967295 bytes", "at most"]),
            (open(&file(GOOD, &data)[..60]).unwrap_err(), ["ends before it says", "numpy.save"]),
        ] {
            assert!(found.starts_with("input 'a': "), "{found}");
            assert!(pieces.iter().all(|piece| found.contains(piece)), "{found}");
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_is_more_than_a_refusal() {
        let whole = file(GOOD, &[0; 48]);
        for end in 0..whole.len() {
            assert!(open(&whole[..end]).is_err());
        }
        for at in 0..128 {
            for byte in [0, b'9', b'(', b'\'', b',', 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = open(&changed);
            }
        }
    }
}
