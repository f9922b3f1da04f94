//! The header of numpy's `.npy` files: read from versions 1.0 to 3.0, written as numpy 2 writes it in version 1.0.
//!
//! Source: "A simple file format for NumPy arrays", NEP 1; padding as in numpy 2's `_write_array_header`.

use super::{ArrayType, ShapeError};
use crate::fragment::Number;

/// Every file begins with this.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read, bytes: numpy writes some hundred.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// The data begins at a multiple of this many bytes.
const ALIGNMENT: usize = 64;
/// Digits for which numpy leaves room, so that the first dimension may grow in place.
const GROWTH_DIGITS: usize = 21;
/// Magic, version and the header's length, in version 1.0.
const PREFIX_BYTES: usize = 10;

/// Why a header is refused. Each says what to do in numpy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// It is another kind of file.
    #[error("this is no .npy file: it does not begin with \\x93NUMPY; write it with numpy.save")]
    Magic,
    /// It ends within its header.
    #[error("the .npy file ends within its header")]
    Cut,
    /// A version nobody knows.
    #[error("versions 1.0, 2.0 and 3.0 of .npy are read, found {major}.{minor}")]
    Version {
        /// Major.
        major: u8,
        /// Minor.
        minor: u8,
    },
    /// A header beyond reason.
    #[error("a .npy header has at most {HEADER_BYTES_MAX} bytes, found {found}")]
    Long {
        /// Bytes declared.
        found: usize,
    },
    /// The dictionary is not what numpy writes.
    #[error("the .npy header is not a dictionary of descr, fortran_order and shape: {reason}")]
    Dictionary {
        /// What is wrong.
        reason: &'static str,
    },
    /// A type that is not kept.
    #[error(
        "the type '{found}' is not kept: float32, float64, int32 and int64 are, little-endian; \
         convert with array.astype('<f8') or its like"
    )]
    Type {
        /// Its `descr`.
        found: String,
    },
    /// Columns before rows.
    #[error("the array is in Fortran order; write it with numpy.save(file, numpy.ascontiguousarray(array))")]
    FortranOrder,
    /// The shape is beyond bounds.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the array is.
    pub array: ArrayType,
    /// Where its numbers begin, bytes.
    pub data_at: u64,
}

/// How numpy spells a type, little-endian.
const fn descr(number: Number) -> &'static str {
    match number {
        Number::Float32 => "<f4",
        Number::Float64 => "<f8",
        Number::Int32 => "<i4",
        Number::Int64 => "<i8",
    }
}

/// The header of an array, the very bytes that `numpy.save` writes before its numbers.
#[must_use]
pub fn header(array: &ArrayType) -> Vec<u8> {
    let lengths: Vec<String> = array.shape.iter().map(ToString::to_string).collect();
    let shape = match lengths.as_slice() {
        [only] => format!("({only},)"),
        all => format!("({})", all.join(", ")),
    };
    let dictionary = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", descr(array.number));
    // A single number has no dimension that could grow.
    let growth = lengths.first().map_or(0, |first| GROWTH_DIGITS.saturating_sub(first.len()));
    let unpadded = PREFIX_BYTES + dictionary.len() + growth + 1;
    let length = unpadded + ALIGNMENT - unpadded % ALIGNMENT - PREFIX_BYTES;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(b"\x01\0");
    // Eight numbers of 20 digits at most: far below 65,536.
    bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = length - 1).bytes());
    bytes
}

/// Where the numbers begin in a file whose first bytes are these; `None` where twelve bytes are needed and not there.
///
/// # Errors
/// `Magic`, `Version`, `Long`.
pub fn data_at(start: &[u8]) -> Result<Option<usize>, NpyError> {
    let seen = start.len().min(MAGIC.len());
    if start.get(..seen) != MAGIC.get(..seen) {
        return Err(NpyError::Magic);
    }
    let (Some(major), Some(minor)) = (start.get(6), start.get(7)) else { return Ok(None) };
    let (prefix, length) = match (major, minor) {
        (1, 0) => {
            let Some(length) = start.get(8..10).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (10, usize::from(u16::from_le_bytes(*length)))
        }
        (2 | 3, 0) => {
            let Some(length) = start.get(8..12).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
            (12, usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX))
        }
        (major, minor) => return Err(NpyError::Version { major: *major, minor: *minor }),
    };
    if length > HEADER_BYTES_MAX {
        return Err(NpyError::Long { found: length });
    }
    Ok(Some(prefix + length))
}

/// Reads the header of a file from its first bytes, as many of them as [`HEADER_BYTES_MAX`] and twelve more where there are.
///
/// # Errors
/// See [`NpyError`].
pub fn read(start: &[u8]) -> Result<Header, NpyError> {
    let end = data_at(start)?.ok_or(NpyError::Cut)?;
    let prefix = if start.get(6) == Some(&1) { 10 } else { 12 };
    let text = start.get(prefix..end).ok_or(NpyError::Cut)?;
    let text = std::str::from_utf8(text).map_err(|_| NpyError::Dictionary { reason: "it is not text" })?;
    let fields = dictionary(text)?;
    let number = number(&fields.descr)?;
    // A row or a column is both at once.
    let long = fields.shape.iter().filter(|length| **length != 1).count();
    if fields.fortran && long > 1 && !fields.shape.contains(&0) {
        return Err(NpyError::FortranOrder);
    }
    Ok(Header { array: ArrayType::new(number, fields.shape)?, data_at: end as u64 })
}

fn number(descr: &str) -> Result<Number, NpyError> {
    match descr {
        "<f4" => Ok(Number::Float32),
        "<f8" => Ok(Number::Float64),
        "<i4" => Ok(Number::Int32),
        "<i8" => Ok(Number::Int64),
        other => Err(NpyError::Type { found: other.chars().take(40).collect() }),
    }
}

#[derive(Debug)]
struct Fields {
    descr: String,
    fortran: bool,
    shape: Vec<u64>,
}

/// Reads the Python dictionary, in any order of its keys, with any blanks.
fn dictionary(text: &str) -> Result<Fields, NpyError> {
    let mut rest = Rest(text.trim());
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    rest.expect('{', "no '{'")?;
    while !rest.take('}') {
        let key = rest.string()?;
        rest.expect(':', "no ':' after a key")?;
        let again = match key {
            "descr" => descr.replace(rest.descr()?).is_some(),
            "fortran_order" => fortran.replace(rest.truth()?).is_some(),
            "shape" => shape.replace(rest.tuple()?).is_some(),
            _ => return Err(NpyError::Dictionary { reason: "an unknown key" }),
        };
        if again {
            return Err(NpyError::Dictionary { reason: "a key stands twice" });
        }
        if !rest.take(',') {
            rest.expect('}', "no ',' after a value")?;
            break;
        }
    }
    if !rest.0.is_empty() {
        return Err(NpyError::Dictionary { reason: "something after '}'" });
    }
    let missing = NpyError::Dictionary { reason: "a key is missing" };
    match (descr, fortran, shape) {
        (Some(descr), Some(fortran), Some(shape)) => Ok(Fields { descr, fortran, shape }),
        _ => Err(missing),
    }
}

/// Text that is not read yet, without blanks before it.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, character: char) -> bool {
        match self.0.strip_prefix(character) {
            Some(rest) => {
                self.0 = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, character: char, reason: &'static str) -> Result<(), NpyError> {
        if self.take(character) { Ok(()) } else { Err(NpyError::Dictionary { reason }) }
    }

    fn string(&mut self) -> Result<&'a str, NpyError> {
        let wrong = NpyError::Dictionary { reason: "a text was expected" };
        let quote = self.0.chars().next().filter(|first| matches!(first, '\'' | '"')).ok_or(wrong.clone())?;
        let (text, rest) = self.0.get(1..).and_then(|rest| rest.split_once(quote)).ok_or(wrong)?;
        self.0 = rest.trim_start();
        Ok(text)
    }

    /// A type; a list of fields is one that is not kept.
    fn descr(&mut self) -> Result<String, NpyError> {
        if self.0.starts_with('[') {
            Err(NpyError::Type { found: "a structure".into() })
        } else {
            self.string().map(str::to_owned)
        }
    }

    fn truth(&mut self) -> Result<bool, NpyError> {
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest.trim_start();
                return Ok(value);
            }
        }
        Err(NpyError::Dictionary { reason: "True or False was expected" })
    }

    fn tuple(&mut self) -> Result<Vec<u64>, NpyError> {
        self.expect('(', "no '(' before the shape")?;
        let mut shape = Vec::new();
        while !self.take(')') {
            let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = self.0.split_at(digits);
            // Python 2 wrote long integers with an L.
            self.0 = rest.strip_prefix('L').unwrap_or(rest).trim_start();
            shape.push(number.parse().map_err(|_| NpyError::Dictionary { reason: "a length was expected" })?);
            if !self.take(',') {
                // (3) is a number to Python, not a tuple; numpy never writes it.
                let tuple = shape.len() > 1;
                self.expect(')', "no ')' after the shape")?;
                return if tuple { Ok(shape) } else { Err(NpyError::Dictionary { reason: "the shape is no tuple" }) };
            }
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn array(number: Number, shape: &[u64]) -> ArrayType {
        ArrayType::new(number, shape.to_vec()).unwrap()
    }

    /// `header` with this dictionary.
    fn with(version: u8, dictionary: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        if version == 1 {
            bytes.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
        } else {
            bytes.extend(u32::try_from(dictionary.len()).unwrap().to_le_bytes());
        }
        bytes.extend(dictionary.bytes());
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_numpy() {
        // numpy 2.4: numpy.save of zeros of these shapes.
        for (number, shape, text, length) in [
            (Number::Float64, &[2, 3][..], "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", 118_u16),
            (Number::Int32, &[5], "{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }", 118),
            (Number::Float32, &[], "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 118),
            (Number::Int64, &[0, 4, 1], "{'descr': '<i8', 'fortran_order': False, 'shape': (0, 4, 1), }", 118),
        ] {
            let mut expected = b"\x93NUMPY\x01\0".to_vec();
            expected.extend(length.to_le_bytes());
            expected.extend(text.bytes());
            expected.resize(usize::from(length) + 9, b' ');
            expected.push(b'\n');
            assert_eq!(header(&array(number, shape)), expected, "{text}");
        }
    }

    #[test]
    fn what_python_may_write_is_read() {
        let expected = array(Number::Float64, &[2, 3]);
        for text in [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }   \n",
            "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f8'}",
            "{ \"descr\" :\"<f8\" , 'fortran_order':False,'shape':( 2L ,3L ) }\n",
        ] {
            for version in [1, 2, 3] {
                let bytes = with(version, text);
                let found = read(&bytes).unwrap();
                assert_eq!((found.array, found.data_at), (expected.clone(), bytes.len() as u64), "{version} {text}");
            }
        }
        let row = read(&with(1, "{'descr': '<i8', 'fortran_order': True, 'shape': (1, 7)}")).unwrap();
        assert_eq!(row.array, array(Number::Int64, &[1, 7]));
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let of = |text: &str| read(&with(1, text)).unwrap_err();
        assert_eq!(read(b"PK\x03\x04").unwrap_err(), NpyError::Magic);
        assert_eq!(read(b"\x93NUM").unwrap_err(), NpyError::Cut);
        assert_eq!(read(b"\x93NUMPY\x04\0\x10\0").unwrap_err(), NpyError::Version { major: 4, minor: 0 });
        assert!(matches!(read(b"\x93NUMPY\x02\0\xff\xff\xff\xff").unwrap_err(), NpyError::Long { .. }));
        assert_eq!(
            of("{'descr': '>f8', 'fortran_order': False, 'shape': (2,)}"),
            NpyError::Type { found: ">f8".into() }
        );
        assert!(matches!(of("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': ()}"), NpyError::Type { .. }));
        assert_eq!(of("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}"), NpyError::FortranOrder);
        let nine = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}";
        assert_eq!(of(nine), NpyError::Shape(ShapeError::Dimensions { found: 9 }));
        for text in [
            "",
            "{}",
            "{'descr': '<f8', 'fortran_order': False}",
            "{'descr': '<f8', 'fortran_order': 0, 'shape': ()}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (), 'x': 1}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': ()} x",
        ] {
            assert!(matches!(of(text), NpyError::Dictionary { .. }), "{text}: {:?}", of(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            shape in proptest::collection::vec(0_u64..100_000, 0..=8),
            number in proptest::sample::select(vec![Number::Float32, Number::Float64, Number::Int32, Number::Int64]),
        ) {
            if let Ok(array) = ArrayType::new(number, shape) {
                let bytes = header(&array);
                prop_assert_eq!(bytes.len() % 64, 0);
                prop_assert_eq!(read(&bytes).unwrap(), Header { array, data_at: bytes.len() as u64 });
            }
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[{}'a-z:, ()0-9TF<>]{0,60}") {
            let _ = read(&bytes);
            let mut after = MAGIC.to_vec();
            after.extend(&bytes);
            let _ = read(&after);
            let _ = read(&with(1, &text));
        }
    }
}
