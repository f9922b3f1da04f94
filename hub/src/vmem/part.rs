//! Parts of an array: their numbers read run by run from where they lie, written in any format.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write};

use forge_contract::array::slice::{Run, Selection};
use forge_contract::array::{ArrayType, npy};

use super::{Format, arrow};
use crate::store::Source;

/// Numbers closer than this are read together with what lies between them, bytes.
const NEAR_BYTES: u64 = 4 << 10;
/// Bytes read at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// A part of a stored array: what it is, and where its numbers lie.
#[derive(Debug)]
pub struct Part {
    /// The file's bytes.
    pub source: Source,
    /// Where the array's numbers begin in it, bytes.
    pub data_at: u64,
    /// Which of them; in order.
    pub selection: Selection,
    /// What the part is.
    pub array: ArrayType,
}

/// Writes a part in a format.
///
/// # Errors
/// The stored bytes cannot be read, or the writer fails.
pub fn write(mut part: Part, format: Format, to: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Npy | Format::Json => {
            to.write_all(&npy::header(&part.array))?;
            part.numbers(|bytes| to.write_all(bytes))
        }
        Format::ArrowStream | Format::ArrowFile => arrow::write(part, format, to),
    }
}

impl Part {
    /// Gives the part's bytes in order, some at a time, whole numbers each.
    ///
    /// # Errors
    /// The stored bytes cannot be read; what `take` answers.
    pub fn numbers(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Self { source, data_at, selection, array } = self;
        let width = array.number.bytes();
        let mut window = Window { source, data_at: *data_at, bytes: Vec::new() };
        for run in selection.runs() {
            read(&mut window, run, width, &mut take)?;
        }
        Ok(())
    }
}

fn read(
    window: &mut Window<'_>,
    run: Run,
    width: u64,
    take: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let distance = run.step.unsigned_abs().saturating_mul(width);
    // One at a time where they lie far apart, or as many as lie in a window.
    let together = if distance > NEAR_BYTES { 1 } else { (WINDOW_BYTES / distance.max(1)).max(1) };
    let mut left = run;
    while left.count > 0 {
        let now = Run { count: left.count.min(together), ..left };
        let (low, high) = now.span();
        let bytes = window.load(low * width, (high - low) * width)?;
        if run.step == 1 {
            take(bytes)?;
        } else {
            take(&picked(bytes, now, width))?;
        }
        let far = i64::try_from(now.count).unwrap_or(i64::MAX).saturating_mul(run.step);
        left = Run { first: left.first.wrapping_add_signed(far), count: left.count - now.count, step: run.step };
    }
    Ok(())
}

/// The numbers of a run out of the bytes it spans.
fn picked(bytes: &[u8], run: Run, width: u64) -> Vec<u8> {
    let size = usize::try_from(width).unwrap_or(8);
    let step = usize::try_from(run.step.unsigned_abs()).unwrap_or(usize::MAX);
    let numbers = bytes.chunks_exact(size).step_by(step);
    if run.step < 0 { numbers.rev().flatten().copied().collect() } else { numbers.flatten().copied().collect() }
}

/// The last bytes read.
struct Window<'a> {
    source: &'a mut Source,
    data_at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn load(&mut self, at: u64, length: u64) -> io::Result<&[u8]> {
        let at = self.data_at + at;
        let size = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        match self.source {
            Source::File(file, _) => {
                file.seek(SeekFrom::Start(at))?;
                self.bytes.resize(size, 0);
                file.read_exact(&mut self.bytes)?;
                Ok(&self.bytes)
            }
            Source::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let range = from..from.saturating_add(size);
                bytes.get(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::fragment::Number;

    /// A cube of 20 x 30 x 40 numbers that count, and its file.
    fn cube() -> (ArrayType, Vec<u8>) {
        let array = ArrayType::new(Number::Int32, vec![20, 30, 40]).unwrap();
        let mut file = npy::header(&array);
        (0..24_000_i32).for_each(|number| file.extend(number.to_le_bytes()));
        (array, file)
    }

    fn given(source: Source, text: &str) -> (Vec<u64>, Vec<i32>) {
        let (array, file) = cube();
        let selection = Selection::parse(text, &array).unwrap();
        let data_at = file.len() as u64 - array.bytes();
        let array = ArrayType::new(array.number, selection.shape().to_vec()).unwrap();
        let mut out = Vec::new();
        write(Part { source, data_at, selection, array: array.clone() }, Format::Npy, &mut out).unwrap();
        let header = npy::read(&out).unwrap();
        assert_eq!(header.array, array);
        let numbers = out[usize::try_from(header.data_at).unwrap()..].as_chunks::<4>().0.iter();
        (array.shape, numbers.map(|bytes| i32::from_le_bytes(*bytes)).collect())
    }

    #[test]
    fn parts_come_from_files_and_from_memory_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cube.npy");
        std::fs::write(&path, cube().1).unwrap();
        for (text, shape, expected) in [
            ("...", &[20, 30, 40][..], (0..24_000).collect::<Vec<i32>>()),
            ("3,-1", &[40], (3 * 1200 + 29 * 40..3 * 1200 + 30 * 40).collect()),
            ("::-1,0,0", &[20], (0..20).rev().map(|n| n * 1200).collect()),
            ("...,7", &[20, 30], (7..24_000).step_by(40).collect()),
            (
                "5,:,10:20:3",
                &[30, 4],
                (0..30).flat_map(|row| [10, 13, 16, 19].map(|at| 6000 + row * 40 + at)).collect(),
            ),
            ("0,0,::-1", &[40], (0..40).rev().collect()),
            ("4:4", &[0, 30, 40], vec![]),
            ("-1,-1,-1", &[], vec![23_999]),
        ] {
            let file = Source::File(std::fs::File::open(&path).unwrap(), 0);
            assert_eq!(given(file, text), (shape.to_vec(), expected.clone()), "{text}");
            assert_eq!(given(Source::Bytes(cube().1.into()), text), (shape.to_vec(), expected), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_cut_gives_an_error() {
        let (array, mut file) = cube();
        file.truncate(file.len() - 1);
        let selection = Selection::parse("-1", &array).unwrap();
        let mut part = Part { source: Source::Bytes(file.into()), data_at: 128, selection, array };
        assert_eq!(part.numbers(|_| Ok(())).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
