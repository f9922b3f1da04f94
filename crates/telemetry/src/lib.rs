//! Spans of hub and agents, sent to a collector (OTLP over HTTP, protobuf).
//!
//! Spans are made whole when what they are about is over, with ids that both ends can derive
//! ([`TraceContext::child`]), so that nothing is held open in between. They go into a bounded queue: where it is full they
//! are dropped and counted, and no work ever waits for a collector. One task sends them in batches.

mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forge_contract::trace::TraceContext;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

pub use send::TelemetryError;

/// Spans that wait to be sent; beyond them, new ones are dropped.
const QUEUE_MAX: usize = 4096;
/// What the last spans get to be sent in when the process ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a span is of the other side's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its parent is in another process, which waits for it.
    Server,
    /// Another process does what it asks for.
    Client,
    /// Neither.
    Internal,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Something that was done, from when to when.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What.
    pub name: String,
    /// What it is of the other side's.
    pub kind: Kind,
    /// Its trace and its own id.
    pub context: TraceContext,
    /// The span it is part of; zeros for none.
    pub parent: [u8; 8],
    /// When it began.
    pub from: SystemTime,
    /// When it ended.
    pub until: SystemTime,
    /// What else there is to say.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// A moment of ms since 1970.
#[must_use]
pub fn moment(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

/// Takes spans and sends them, or throws them away where no collector is named.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: std::sync::Mutex<Option<mpsc::Sender<Span>>>,
    dropped: Arc<AtomicU64>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

impl Telemetry {
    /// Sends nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Sends to the collector at `url`, such as `http://127.0.0.1:4318`; `service` and `instance` say who sends.
    ///
    /// # Errors
    /// See [`TelemetryError`]. A collector that is away is no error.
    pub fn start(url: &str, service: &'static str, instance: String) -> Result<Self, TelemetryError> {
        let exporter = send::exporter(url, service, instance)?;
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let sender = tokio::spawn(send::run(exporter, spans));
        let queue = std::sync::Mutex::new(Some(queue));
        Ok(Self(Some(Arc::new(Inner { queue, dropped: Arc::default(), sender: Mutex::new(Some(sender)) }))))
    }

    /// The same as [`Self::start`] where a collector is named, else [`Self::off`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn to(url: Option<&str>, service: &'static str, instance: String) -> Result<Self, TelemetryError> {
        match url.filter(|url| !url.is_empty()) {
            Some(url) => Self::start(url, service, instance),
            None => Ok(Self::off()),
        }
    }

    /// Whether spans are sent: where not, none need be made.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a span, if its trace is recorded. Never waits.
    pub fn record(&self, span: Span) {
        let Some(inner) = self.0.as_ref().filter(|_| span.context.sampled) else { return };
        let queue = inner.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if queue.as_ref().is_some_and(|queue| queue.try_send(span).is_err()) {
            inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans thrown away because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.dropped.load(Ordering::Relaxed))
    }

    /// Sends what is queued, for a few seconds at most; takes no more.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        drop(inner.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        let Some(sender) = inner.sender.lock().await.take() else { return };
        let stop = sender.abort_handle();
        if tokio::time::timeout(FAREWELL, sender).await.is_err() {
            stop.abort();
            tracing::warn!("the last spans were not sent: the collector does not answer");
        }
        if self.dropped() > 0 {
            tracing::warn!(spans = self.dropped(), "spans were dropped: the collector is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn span(sampled: bool) -> Span {
        let context = TraceContext { trace: [1; 16], span: [2; 8], sampled };
        let (from, until) = (moment(1), moment(2));
        let (name, attributes) = ("x".to_owned(), vec![("n", 1u64.into()), ("t", "text".into())]);
        Span { name, kind: Kind::Internal, context, parent: [0; 8], from, until, attributes, failed: None }
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_holds_nobody_up() {
        // A collector that takes connections and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let telemetry = Telemetry::start(&url, "test", "one".into()).unwrap();
        // The one thread of this test never gets to the task that sends.
        for _ in 0..QUEUE_MAX {
            telemetry.record(span(true));
        }
        assert_eq!(telemetry.dropped(), 0);
        for _ in 0..7 {
            telemetry.record(span(true));
            telemetry.record(span(false));
        }
        assert_eq!(telemetry.dropped(), 7, "spans of a trace that is not recorded count for nothing");
    }

    #[tokio::test]
    async fn without_a_collector_nothing_is_kept() {
        for off in [Telemetry::off(), Telemetry::to(None, "test", String::new()).unwrap()] {
            assert!(!off.is_on());
            off.record(span(true));
            off.close().await;
        }
        assert!(!Telemetry::to(Some(""), "test", String::new()).unwrap().is_on());
        let error = Telemetry::start("collector:4318", "test", String::new()).unwrap_err();
        assert!(error.to_string().contains("expected http://"), "{error}");
    }
}
