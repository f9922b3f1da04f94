//! A body that arrived, in whichever format, to the canonical file of its array.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use forge_contract::array::npy::{self, HEADER_BYTES_MAX, NpyError};
use forge_contract::array::{ArrayType, ShapeError};

use super::{Format, arrow};
use crate::store::blobs::{BlobError, Blobs, Draft, Hold};

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Why a body is no array.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// Its `.npy` header is refused.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// Its data is shorter or longer than its header says.
    #[error("the header says {expected} bytes of numbers, {found} follow")]
    Length {
        /// What the shape needs.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// It is no Arrow, or not of a form that is kept.
    #[error("{0}")]
    Arrow(String),
    /// Its shape is beyond bounds.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The file system failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The file system failed while reading what arrived.
    #[error("the body cannot be read back: {0}")]
    Io(#[from] std::io::Error),
}

/// An array in its canonical file.
#[derive(Debug)]
pub struct Taken {
    /// The file, held.
    pub hold: Hold,
    /// Its size, bytes.
    pub bytes: u64,
    /// What the array is.
    pub array: ArrayType,
    /// Where its numbers begin, bytes.
    pub data_at: u64,
}

/// Makes the canonical file of the array in a body that arrived. Blocks on the disk.
///
/// # Errors
/// See [`ArrayError`]; nothing is left then.
pub fn convert(blobs: &Arc<Blobs>, body: Draft, format: Format) -> Result<Taken, ArrayError> {
    match format {
        Format::Npy | Format::Json => of_npy(blobs, body),
        Format::ArrowStream | Format::ArrowFile => arrow::read(blobs, &body),
    }
}

fn of_npy(blobs: &Arc<Blobs>, body: Draft) -> Result<Taken, ArrayError> {
    let mut file = body.reopen()?;
    let mut start = Vec::new();
    (&mut file).take(HEADER_BYTES_MAX as u64 + 12).read_to_end(&mut start)?;
    let header = npy::read(&start)?;
    let found = body.bytes().saturating_sub(header.data_at);
    if found != header.array.bytes() {
        return Err(ArrayError::Length { expected: header.array.bytes(), found });
    }
    let canonical = npy::header(&header.array);
    if start.get(..usize::try_from(header.data_at).unwrap_or(usize::MAX)) == Some(canonical.as_slice()) {
        return kept(blobs, body, header.array, header.data_at);
    }
    file.seek(SeekFrom::Start(header.data_at))?;
    let mut draft = blobs.draft()?;
    draft.write(&canonical)?;
    copy(file, &mut draft)?;
    kept(blobs, draft, header.array, canonical.len() as u64)
}

fn copy(mut from: File, to: &mut Draft) -> Result<(), ArrayError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            read => to.write(chunk.get(..read).unwrap_or_default())?,
        }
    }
}

pub(super) fn kept(blobs: &Blobs, draft: Draft, array: ArrayType, data_at: u64) -> Result<Taken, ArrayError> {
    let (hold, bytes) = blobs.keep(draft)?;
    Ok(Taken { hold, bytes, array, data_at })
}
