//! The child's side of a large input: what a unit reads is asked of the parent, and kept for the next that reads it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use forge_contract::{Digest, Failure, FailureCode};

use super::frame::{FromChild, ToChild};
use super::{INPUT_KEPT_BYTES_MAX, WANT_BYTES_MAX};
use crate::inputs::{Reads, Want};

/// Bytes that are expected next where reads lie one behind the other.
const AHEAD_BYTES: u64 = 4 << 20;
/// The same where there is a gap between them: what is read wrongly ahead was read for nothing.
const AHEAD_APART_BYTES: u64 = 512 << 10;
/// What a read takes at least where there are gaps: pieces are verified by so much.
const PAGE: u64 = 16 << 10;

/// Frames from the parent, one after the other.
pub(super) struct Line(Mutex<Receiver<Vec<u8>>>);

impl Line {
    pub(super) fn new(frames: Receiver<Vec<u8>>) -> Self {
        Self(Mutex::new(frames))
    }

    /// The next; `None` when there are no more.
    pub(super) fn next(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).recv().ok().map(Bytes::from)
    }
}

/// An input that the parent has.
pub(super) struct Asked {
    line: Arc<Line>,
    digest: Digest,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By where they begin.
    pieces: BTreeMap<u64, Bytes>,
    /// In the order they came.
    order: VecDeque<u64>,
    bytes: usize,
    track: Track,
}

impl Asked {
    pub(super) fn new(line: Arc<Line>, digest: Digest) -> Self {
        Self { line, digest, kept: Mutex::default() }
    }

    fn ask(&self, kept: &mut Kept, want: Want) -> Result<(), Failure> {
        let broken = |what: String| Failure::new(FailureCode::AgentWorkerLost, what);
        super::child::say(&FromChild::Want { digest: self.digest, want }).map_err(|error| broken(error.to_string()))?;
        // Where the parent is gone, the process is ending.
        let frame = self.line.next().ok_or_else(|| broken("the parent is gone".into()))?;
        match postcard::from_bytes(&frame) {
            Ok(ToChild::Pieces { pieces }) => {
                pieces.into_iter().for_each(|(offset, bytes)| kept.keep(offset, frame.slice_ref(bytes)));
                Ok(())
            }
            _ => Err(broken("the parent's frame does not belong here".into())),
        }
    }
}

impl Reads for Asked {
    fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, Failure> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.track.note(offset, bytes as u64);
        let mut found = BytesMut::new();
        let mut asked_at = None;
        while found.len() < bytes {
            let at = offset + found.len() as u64;
            match kept.from(at) {
                Some(mut piece) => {
                    piece.truncate(bytes - found.len());
                    if piece.len() == bytes {
                        // All of it, as mostly: it is lowered from where it lies.
                        return Ok(piece);
                    }
                    found.reserve(bytes - found.len());
                    found.extend_from_slice(&piece);
                }
                None if asked_at == Some(at) => {
                    return Err(Failure::new(FailureCode::AgentProtocol, "the parent's piece is another"));
                }
                None => {
                    asked_at = Some(at);
                    let want = kept.track.want(at, (bytes - found.len()) as u64);
                    self.ask(&mut kept, want)?;
                }
            }
        }
        Ok(found.freeze())
    }
}

impl Kept {
    /// What is here from this byte on.
    fn from(&self, at: u64) -> Option<Bytes> {
        let (offset, piece) = self.pieces.range(..=at).next_back()?;
        let rest = piece.get(usize::try_from(at - offset).ok()?..)?;
        if rest.is_empty() { None } else { Some(piece.slice_ref(rest)) }
    }

    /// Keeps a piece; the oldest make room.
    fn keep(&mut self, offset: u64, bytes: Bytes) {
        let more = bytes.len();
        match self.pieces.insert(offset, bytes) {
            Some(before) => self.bytes -= before.len(),
            None => self.order.push_back(offset),
        }
        self.bytes += more;
        while self.bytes > INPUT_KEPT_BYTES_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.pieces.remove(&oldest));
            self.bytes -= oldest.map_or(0, |piece| piece.len());
        }
    }
}

/// How a unit reads an input: one behind the other, or with a gap that stays the same, as rows of a block do.
#[derive(Debug, Default)]
struct Track {
    /// The last read.
    offset: u64,
    end: u64,
    stride: u64,
    /// Reads in a row that were where they were expected.
    run: u64,
}

impl Track {
    fn note(&mut self, offset: u64, bytes: u64) {
        match offset.checked_sub(self.offset) {
            _ if offset == self.end => {
                self.stride = bytes;
                self.run += 1;
            }
            Some(step) if step == self.stride && step > 0 => self.run += 1,
            Some(step) if step > 0 => {
                self.stride = step;
                self.run = 0;
            }
            // Back to an earlier row: the gap may still be the same.
            _ => self.run = 0,
        }
        (self.offset, self.end) = (offset, offset.saturating_add(bytes));
    }

    /// Asks for these bytes of the last read, and says what is expected next.
    fn want(&self, offset: u64, bytes: u64) -> Want {
        if bytes > WANT_BYTES_MAX {
            // The rest of this very read.
            let steps = (bytes / WANT_BYTES_MAX).min(AHEAD_BYTES / WANT_BYTES_MAX);
            let steps = u32::try_from(steps).unwrap_or(0);
            return Want { offset, bytes: WANT_BYTES_MAX, stride: WANT_BYTES_MAX, steps };
        }
        let whole = (self.end - self.offset).max(1);
        let apart = self.stride > whole;
        let room = if apart { AHEAD_APART_BYTES } else { AHEAD_BYTES };
        let steps = self.run.min(room / whole.max(self.stride.min(PAGE)));
        Want { offset, bytes, stride: self.stride, steps: u32::try_from(steps).unwrap_or(u32::MAX) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_in_a_row_and_rows_of_a_block_are_foreseen() {
        let mut track = Track::default();
        let mut steps = Vec::new();
        for read in 0..6 {
            track.note(read * 1000, 1000);
            steps.push(track.want(read * 1000, 1000).steps);
        }
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        assert_eq!(track.want(5_200, 800), Want { offset: 5_200, bytes: 800, stride: 1000, steps: 6 });
        // A block: 2,000 bytes of each row of 50,000, from the fourth on.
        let mut steps = Vec::new();
        for row in 3..50 {
            track.note(row * 50_000, 2_000);
            steps.push(track.want(row * 50_000, 2_000).steps);
        }
        assert_eq!(steps[..5], [0, 0, 1, 2, 3]);
        assert_eq!(steps.last(), Some(&32), "within its bound");
        // The next pass over the same rows.
        track.note(152_000, 2_000);
        assert_eq!(track.want(152_000, 2_000).steps, 0);
        track.note(202_000, 2_000);
        assert_eq!(track.want(202_000, 2_000).steps, 1);
    }

    #[test]
    fn a_large_read_is_asked_for_in_parts() {
        let mut track = Track::default();
        track.note(5, 10 << 20);
        assert_eq!(track.want(5, 10 << 20), Want { offset: 5, bytes: 1 << 20, stride: 1 << 20, steps: 4 });
        assert_eq!(track.want(5, 1 << 20).bytes, 1 << 20);
    }

    #[test]
    fn pieces_are_found_by_any_byte_and_the_oldest_make_room() {
        let mut kept = Kept::default();
        kept.keep(100, Bytes::from_static(b"hello"));
        kept.keep(105, Bytes::from_static(b"!"));
        assert_eq!(kept.from(99), None);
        assert_eq!(kept.from(103), Some(Bytes::from_static(b"lo")));
        assert_eq!((kept.from(105), kept.from(106)), (Some(Bytes::from_static(b"!")), None));
        let half = Bytes::from(vec![0; INPUT_KEPT_BYTES_MAX / 2]);
        kept.keep(1 << 40, half.clone());
        assert!(kept.from(100).is_some());
        kept.keep(2 << 40, half);
        assert!(kept.from(100).is_none() && kept.from(1 << 40).is_some() && kept.from(2 << 40).is_some());
        assert_eq!(kept.bytes, INPUT_KEPT_BYTES_MAX / 2 * 2);
    }
}
