//! Around every request that changes something: one row of the audit log, durable before the answer is sent.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use forge_contract::limits::REQUEST_BYTES_MAX;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::trail::Entry;
use http::{HeaderMap, Method, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::Instrument as _;

use super::App;
use super::problem::Problem;
use super::trace::TraceId;
use crate::metrics::Label;
use crate::store::data::{DataWrite, DataWritten};
use crate::store::{StoreError, TrailWrite, Write, Written};

/// Routes that are asked by POST and change nothing.
const READS: [&str; 1] = ["/api/v0/ops/plan"];

/// Rows of refused credentials that may come at once.
const REFUSALS_MAX: u64 = 30;
/// Time in which room for another one is made, milliseconds: 1,440 a day, whoever knocks how often.
const REFUSAL_MS: u64 = 60_000;

/// Who sent a request, from the connection it came on.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Who asks, as the audit log names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The organisation; empty where there is none.
    pub organisation: String,
    /// The project.
    pub project: String,
    /// The key, by its id or the start of its text.
    pub key: String,
}

/// What is known of a request for its row, from its head to its answer.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draft: Entry,
    who: OnceLock<Who>,
    note: Mutex<String>,
    body: Mutex<Sum>,
    noted: AtomicBool,
}

impl Ticket {
    fn of(app: &App, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("(none)", |path| path.as_str());
        let trace = request.extensions().get::<TraceId>().map(|trace| trace.0.clone());
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let draft = Entry {
            action: format!("{} {route}", request.method()),
            target: request.uri().path().to_owned(),
            peer: peer.map(|peer| origin(peer, request.headers(), &app.trusted_proxies)).unwrap_or_default(),
            trace_id: trace.unwrap_or_default(),
            ..Entry::default()
        };
        let (who, note, body) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { draft, who, note, body, noted: AtomicBool::new(false) }))
    }

    /// The caller is known now.
    pub fn identify(&self, who: Who) {
        // Whoever was first is the one whose leave was used.
        let _ = self.0.who.set(who);
    }

    /// Something else for the row to say.
    pub fn note(&self, text: impl Into<String>) {
        *self.0.note.lock().unwrap_or_else(PoisonError::into_inner) = text.into();
    }

    /// The row for this outcome.
    #[must_use]
    pub fn entry(&self, status: StatusCode, code: Option<FailureCode>) -> Entry {
        let Who { organisation, project, key } = self.0.who.get().cloned().unwrap_or_default();
        Entry {
            at_ms: crate::clock::unix_ms(),
            organisation,
            project,
            key,
            status: status.as_u16(),
            code: code.map_or_else(String::new, |code| code.as_str().to_owned()),
            note: self.0.note.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            body: self.0.body.lock().unwrap_or_else(PoisonError::into_inner).digest(),
            ..self.0.draft.clone()
        }
    }

    /// Makes a change of what a project keeps together with its row, which one flush makes durable. Where nothing is changed
    /// there is no row yet: the answer says why not, and its row with it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn with(&self, app: &App, write: DataWrite, status: StatusCode) -> Result<DataWritten, StoreError> {
        let write = Write::Data(Box::new(write)).audited(self.entry(status, None));
        match app.store.submit(write).await? {
            Written::Data(written) => {
                if written.is_change() {
                    self.done();
                    app.metrics.audit_rows.get_or_create(&Label { kind: "written" }).inc();
                }
                Ok(written)
            }
            _ => Err(StoreError::Corrupt { what: "answer to a change" }),
        }
    }

    /// The row is durable already: it went with the change.
    pub fn done(&self) {
        self.0.noted.store(true, Ordering::Release);
    }
}

/// Handles one request and notes what came of it.
pub async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let ticket = Ticket::of(&app, &request);
    request.extensions_mut().insert(ticket.clone());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if !changes || route.is_some_and(|route| READS.contains(&route.as_str())) {
        let response = next.run(request).await;
        refused(&app, &ticket, &response);
        return response;
    }
    let summed = ticket.clone();
    let request = request.map(|body| Body::new(Summed { body, ticket: summed }));
    // A task of its own: what was begun is noted, whether or not its sender still listens.
    let handled = async move {
        let response = next.run(request).await;
        note(&app, &ticket, response).await
    };
    match tokio::spawn(handled.in_current_span()).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Problem::of(FailureCode::SchedulingShutdown, "the hub is stopping").into_response(),
        },
    }
}

async fn note(app: &App, ticket: &Ticket, response: Response) -> Response {
    refused(app, ticket, &response);
    let (status, code) = (response.status(), response.extensions().get::<Problem>().map(Problem::code));
    // Who is told to come later has changed nothing, and may come very often.
    let nothing = ticket.0.who.get().is_none() || status == StatusCode::TOO_MANY_REQUESTS;
    if nothing || ticket.0.noted.load(Ordering::Acquire) {
        return response;
    }
    match app.store.submit(TrailWrite::Row(ticket.entry(status, code)).into()).await {
        Ok(_) => {
            app.metrics.audit_rows.get_or_create(&Label { kind: "written" }).inc();
            response
        }
        Err(error) => {
            app.metrics.audit_rows.get_or_create(&Label { kind: "failed" }).inc();
            tracing::error!(%error, action = ticket.0.draft.action, status = status.as_u16(), "the audit log could not be written");
            // What cannot be noted is not acknowledged.
            match status.is_success() {
                true => Problem::of(FailureCode::AggregationStorage, "the hub could not write its audit log")
                    .into_response(),
                false => response,
            }
        }
    }
}

/// Notes a refused credential, unless too many were noted lately.
fn refused(app: &App, ticket: &Ticket, response: &Response) {
    // Of a key that stopped working meanwhile, its row says so.
    if response.status() != StatusCode::UNAUTHORIZED || ticket.0.who.get().is_some() {
        return;
    }
    app.metrics.unauthenticated.inc();
    let now = crate::clock::unix_ms();
    let Some(left_out) = app.refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(now) else { return };
    if left_out > 0 {
        ticket.note(format!("{left_out} more before this one were not noted"));
    }
    let entry = ticket.entry(response.status(), response.extensions().get::<Problem>().map(Problem::code));
    // Nobody waits for it: an answer to a stranger is not worth a flush.
    drop(app.store.submit(TrailWrite::Row(entry).into()));
}

/// How many rows of refused credentials there may still be.
#[derive(Clone, Copy, Debug)]
pub struct Refusals {
    room: u64,
    since_ms: u64,
    left_out: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { room: REFUSALS_MAX, since_ms: 0, left_out: 0 }
    }
}

impl Refusals {
    /// Whether another one may be noted, and if so how many were left out since the last.
    fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let more = now_ms.saturating_sub(self.since_ms) / REFUSAL_MS;
        self.since_ms =
            if self.room.saturating_add(more) >= REFUSALS_MAX { now_ms } else { self.since_ms + more * REFUSAL_MS };
        self.room = self.room.saturating_add(more).min(REFUSALS_MAX);
        if self.room == 0 {
            self.left_out += 1;
            return None;
        }
        self.room -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Where a request came from: of what trusted proxies say, the nearest address that is not theirs.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> String {
    let mut from = peer;
    let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    for hop in hops.iter().rev() {
        if !trusted.contains(&from) {
            break;
        }
        // What a trusted proxy passes on and is no address, is where the trail ends.
        let Ok(address) = hop.parse() else { break };
        from = address;
    }
    from.to_string()
}

/// The digest of a body while it is read.
#[derive(Debug, Default)]
struct Sum {
    hasher: Option<Box<blake3::Hasher>>,
    bytes: usize,
    whole: bool,
}

impl Sum {
    fn update(&mut self, data: &Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        if self.bytes <= REQUEST_BYTES_MAX {
            self.hasher.get_or_insert_default().update(data);
        } else {
            self.hasher = None;
        }
    }

    fn digest(&self) -> Option<Digest> {
        let hasher = self.hasher.as_ref().filter(|_| self.whole)?;
        Some(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }
}

/// A body that is summed up while it is read. Large ones are not: they are content and have a digest of their own.
struct Summed {
    body: Body,
    ticket: Ticket,
}

impl HttpBody for Summed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let ended = self.body.is_end_stream();
        let mut sum = self.ticket.0.body.lock().unwrap_or_else(PoisonError::into_inner);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    sum.update(data);
                }
                sum.whole |= ended;
            }
            Poll::Ready(None) => sum.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        drop(sum);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refusals_are_bounded_and_counted() {
        let mut refusals = Refusals::default();
        let mut noted = |from_ms: u64, knocks: u64| {
            (0..knocks).filter_map(|knock| refusals.admit(from_ms + knock)).collect::<Vec<u64>>()
        };
        assert_eq!(noted(1_000_000, 100), vec![0; 30]);
        assert_eq!(noted(1_000_500, 1_000), Vec::<u64>::new());
        // One place a minute, and the row in it says how many had none.
        assert_eq!(noted(1_000_000 + REFUSAL_MS, 10), vec![1_070]);
        assert_eq!(noted(1_000_000 + 3 * REFUSAL_MS, 10), vec![9, 0]);
        // However long it was quiet, no more than at the start.
        assert_eq!(noted(1 << 50, 100).len(), 30);
        // A day of knocking every millisecond of every other minute.
        let day: usize = (0..720).map(|minute| noted((1 << 51) + minute * 2 * REFUSAL_MS, 1_000).len()).sum();
        assert!(day <= 30 + 1_440, "{day}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let at = |peer: &str, said: &[&str], trusted: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let trusted: Vec<IpAddr> = trusted.iter().map(|one| one.parse().unwrap()).collect();
            origin(peer.parse().unwrap(), &headers, &trusted)
        };
        assert_eq!(at("10.0.0.9", &["1.2.3.4"], &[]), "10.0.0.9");
        assert_eq!(at("10.0.0.9", &["1.2.3.4"], &["10.0.0.1"]), "10.0.0.9");
        assert_eq!(at("10.0.0.1", &["1.2.3.4"], &["10.0.0.1"]), "1.2.3.4");
        // What the client itself put in front is not believed.
        assert_eq!(at("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &["10.0.0.1"]), "1.2.3.4");
        assert_eq!(at("10.0.0.1", &["6.6.6.6, 1.2.3.4", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]), "1.2.3.4");
        assert_eq!(at("10.0.0.1", &["nonsense"], &["10.0.0.1"]), "10.0.0.1");
        assert_eq!(at("10.0.0.1", &[], &["10.0.0.1"]), "10.0.0.1");
        assert_eq!(at("::1", &["2001:db8::7"], &["::1"]), "2001:db8::7");
    }

    #[tokio::test]
    async fn a_body_is_summed_when_it_was_read_whole() {
        use http_body_util::BodyExt as _;
        let ticket = || {
            let (who, note, body) = (OnceLock::new(), Mutex::default(), Mutex::default());
            Ticket(Arc::new(Inner { draft: Entry::default(), who, note, body, noted: AtomicBool::new(false) }))
        };
        let digest = |ticket: &Ticket| ticket.entry(StatusCode::OK, None).body;
        let small = ticket();
        let pieces = ["a", "b"].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let mut body = Summed { body: Body::from_stream(futures_util::stream::iter(pieces)), ticket: small.clone() };
        body.frame().await.unwrap().unwrap();
        assert_eq!(digest(&small), None);
        body.collect().await.unwrap();
        assert_eq!(digest(&small), Some(Digest::of(b"ab")));
        let large = ticket();
        let body = Summed { body: Body::from(vec![0; REQUEST_BYTES_MAX + 1]), ticket: large.clone() };
        body.collect().await.unwrap();
        assert_eq!(digest(&large), None);
        assert_eq!(digest(&ticket()), None);
    }
}
