//! Transfers over as many sessions as they take, up to a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forge_contract::{Digest, Failure, FailureCode};
use forge_protocol::proof::{Group, Span};
use forge_protocol::{FetchError, Fetcher, Partial};
use tokio::sync::watch;

/// Sessions over which one transfer may spread.
const TRANSFERS_MAX: u32 = 4;
/// Wait before a transfer that broke off goes on in the same session; grows with each attempt.
const AGAIN: Duration = Duration::from_millis(200);

/// Where objects come from: the session of the moment, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    sessions: watch::Receiver<Option<Fetcher>>,
    fetched: Arc<AtomicU64>,
}

impl Source {
    /// Counts in `fetched` the bytes of objects that arrive, without what proves them.
    pub fn new(sessions: watch::Receiver<Option<Fetcher>>, fetched: Arc<AtomicU64>) -> Self {
        Self { sessions, fetched }
    }

    fn count(&self, bytes: usize) {
        self.fetched.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An object, whole.
    pub async fn whole(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, Failure> {
        let mut partial = Partial::new(digest, bytes_max);
        let mut attempts = Attempts::new(self, digest);
        while let Some(fetcher) = attempts.next().await {
            let before = partial.bytes().len();
            match fetcher.resume(&mut partial).await {
                Ok(bytes) => {
                    self.count(bytes.len().saturating_sub(before));
                    return Ok(bytes);
                }
                Err(error) => {
                    self.count(partial.bytes().len().saturating_sub(before));
                    attempts.failed(error)?;
                }
            }
        }
        Err(attempts.end())
    }

    /// Groups of an object of `bytes` bytes, rising; each handed over once as it arrives. What a broken session brought
    /// is not asked for again.
    pub async fn pieces(
        &self,
        (digest, bytes): (Digest, u64),
        groups: &[u64],
        spans_max: usize,
        mut arrived: impl FnMut(Group) + Send,
    ) -> Result<(), Failure> {
        let mut left = groups;
        let mut attempts = Attempts::new(self, digest);
        while let Some(fetcher) = attempts.next().await {
            let ended = loop {
                let spans = spans(left, spans_max);
                if spans.is_empty() {
                    return Ok(());
                }
                let mut count = 0;
                let take = |group: Group| {
                    count += 1;
                    self.count(group.bytes.len());
                    arrived(group);
                };
                let ended = fetcher.pieces(&digest, bytes, spans, take).await;
                left = left.get(count..).unwrap_or_default();
                if ended.is_err() {
                    break ended;
                }
            };
            if let Err(error) = ended {
                attempts.failed(error)?;
            }
        }
        Err(attempts.end())
    }
}

/// The first of these groups, which rise, as so many spans at most.
fn spans(groups: &[u64], most: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for group in groups {
        let full = spans.len() == most;
        match spans.last_mut() {
            Some(last) if last.end() == *group => last.count += 1,
            _ if full => break,
            _ => spans.push(Span { first: *group, count: 1 }),
        }
    }
    spans
}

/// The attempts of one transfer.
struct Attempts {
    sessions: watch::Receiver<Option<Fetcher>>,
    made: u32,
    last: FetchError,
}

impl Attempts {
    fn new(source: &Source, digest: Digest) -> Self {
        let last = FetchError::Interrupted { digest, reason: "there is no session".into() };
        Self { sessions: source.sessions.clone(), made: 0, last }
    }

    /// The session for the next attempt: a new one at once, the same one after a while. `None` when there were enough.
    async fn next(&mut self) -> Option<Fetcher> {
        if self.made > 0 {
            let _ = tokio::time::timeout(AGAIN * self.made, self.sessions.changed()).await;
        }
        if self.made == TRANSFERS_MAX {
            return None;
        }
        self.made += 1;
        self.sessions.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Keeps why an attempt failed; gives the failure where another cannot help.
    fn failed(&mut self, error: FetchError) -> Result<(), Failure> {
        if !error.is_passing() {
            return Err(Failure::new(FailureCode::AgentFetch, error.to_string()));
        }
        self.last = error;
        Ok(())
    }

    fn end(self) -> Failure {
        Failure::new(FailureCode::AgentFetch, self.last.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_become_spans() {
        let span = |first, count| Span { first, count };
        assert_eq!(spans(&[1, 2, 3, 7, 9, 10], 8), [span(1, 3), span(7, 1), span(9, 2)]);
        assert_eq!(spans(&[1, 2, 3, 7, 8, 10], 2), [span(1, 3), span(7, 2)]);
        assert!(spans(&[], 2).is_empty());
    }
}
