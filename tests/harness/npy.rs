//! `.npy` files as tests write and read them: plain bytes with a header (NEP 1, version 1.0).

use crate::dice::Dice;

/// Numbers of a file.
pub trait Real: Copy {
    /// How numpy spells the type.
    const DESCR: &'static str;
    /// Largest relative error of one rounding.
    const ROUNDING: f64;

    /// The nearest number.
    fn nearest(value: f64) -> Self;
    /// The same number as a double.
    fn double(self) -> f64;
    /// Writes its bytes, little-endian.
    fn write(self, to: &mut Vec<u8>);
    /// The numbers of bytes.
    fn read(bytes: &[u8]) -> Vec<Self>;
}

impl Real for f64 {
    const DESCR: &'static str = "<f8";
    const ROUNDING: f64 = Self::EPSILON / 2.0;

    fn nearest(value: f64) -> Self {
        value
    }

    fn double(self) -> f64 {
        self
    }

    fn write(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<8>().0.iter().map(|bytes| Self::from_le_bytes(*bytes)).collect()
    }
}

impl Real for f32 {
    const DESCR: &'static str = "<f4";
    const ROUNDING: f64 = Self::EPSILON as f64 / 2.0;

    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn double(self) -> f64 {
        self.into()
    }

    fn write(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<4>().0.iter().map(|bytes| Self::from_le_bytes(*bytes)).collect()
    }
}

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Its numbers.
    pub values: Vec<T>,
}

impl<T: Real> Matrix<T> {
    /// Numbers of several magnitudes and either sign: sums of their products depend on the order.
    #[must_use]
    pub fn random(seed: u64, rows: usize, columns: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut number = || {
            let unit = (dice.draw() >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            let scales = [1e-3, 0.1, 1.0, 1.0];
            unit * scales.get((dice.draw() & 3) as usize).copied().unwrap_or(1.0)
        };
        Self { rows, columns, values: (0..rows * columns).map(|_| T::nearest(number())).collect() }
    }

    /// A row.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn row(&self, row: usize) -> &[T] {
        self.values.get(row * self.columns..(row + 1) * self.columns).expect("a row of the matrix")
    }

    /// As a file that numpy reads.
    #[must_use]
    pub fn file(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.values.len() * size_of::<T>());
        self.values.iter().for_each(|value| value.write(&mut data));
        file(T::DESCR, false, &format!("({}, {})", self.rows, self.columns), &data)
    }

    /// A file that must hold such a matrix, its data aligned to 64 bytes as numpy aligns it.
    ///
    /// # Panics
    /// It is something else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let header = bytes.strip_prefix(b"\x93NUMPY\x01\0").expect("version 1.0");
        let length = header.first_chunk::<2>().map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
        assert_eq!((10 + length) % 64, 0, "the data is aligned");
        let (text, data) = bytes.split_at(10 + length);
        let text = std::str::from_utf8(text.get(10..).unwrap_or_default()).expect("text");
        let expected = format!("{{'descr': '{}', 'fortran_order': False, 'shape': (", T::DESCR);
        let shape = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{text}"));
        let (shape, end) = shape.split_once("), }").unwrap_or_else(|| panic!("{text}"));
        assert!(end.ends_with('\n') && end.trim().is_empty(), "{text:?}");
        let shape: Vec<usize> = shape.split(", ").map(|n| n.parse().expect("a length")).collect();
        let &[rows, columns] = shape.as_slice() else { panic!("{text}") };
        let values = T::read(data);
        assert_eq!(values.len(), rows * columns);
        Self { rows, columns, values }
    }
}

/// A file of any header.
///
/// # Panics
/// Never for headers of tests.
#[must_use]
pub fn file(descr: &str, fortran_order: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran_order { "True" } else { "False" };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    let padded = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend(u16::try_from(padded).expect("a short header").to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = padded - 1).bytes());
    bytes.extend(data);
    bytes
}
