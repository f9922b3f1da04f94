//! From a thread that writes to a response that is sent.

use std::io::{self, Write};

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

/// Bytes handed over at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that may wait for the network.
const PIECES_MAX: usize = 4;

/// Gathers what is written and hands it over; blocks while too much waits.
#[derive(Debug)]
pub struct Pipe {
    gathered: Vec<u8>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Pipe {
    fn hand_over(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.gathered);
        // Whoever asked has left: the thread ends.
        self.pieces.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() { Ok(()) } else { self.hand_over() }
    }
}

/// Threads that may write at the same time: readers that are slow must not take all of them from the rest of the hub.
static WRITERS: Semaphore = Semaphore::const_new(64);

/// A body that a thread writes while it is sent. Where writing fails the body breaks off, so that nobody takes it for whole.
pub fn stream(write: impl FnOnce(&mut Pipe) -> io::Result<()> + Send + 'static) -> Body {
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        // It is never closed.
        let turn = WRITERS.acquire().await;
        let written = tokio::task::spawn_blocking(move || run(pieces, write)).await;
        drop(turn);
        if written.is_err() {
            tracing::error!("an array could not be written out");
        }
    });
    let next =
        async |mut waiting: mpsc::Receiver<io::Result<Bytes>>| waiting.recv().await.map(|piece| (piece, waiting));
    Body::from_stream(futures_util::stream::unfold(waiting, next))
}

fn run(pieces: mpsc::Sender<io::Result<Bytes>>, write: impl FnOnce(&mut Pipe) -> io::Result<()>) {
    let failed = pieces.clone();
    let mut pipe = Pipe { gathered: Vec::new(), pieces };
    if let Err(error) = write(&mut pipe).and_then(|()| pipe.flush()) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            tracing::error!(%error, "an array could not be read");
        }
        // Nobody listens any more where the pipe is what broke.
        let _ = failed.blocking_send(Err(error));
    }
}
