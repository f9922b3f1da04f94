//! A job's progress as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use forge_contract::FailureCode;
use futures_util::stream::{self, Stream};
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::App;
use super::auth::{Caller, Scope};
use super::jobs::{job_id, progress_block, status_word};
use super::problem::{Problem, ProblemBody};
use super::trace::TraceId;
use crate::coordinator::{Ended, LiveJob, Stamped};
use crate::document::ProgressBlock;

const HEARTBEAT: Duration = Duration::from_secs(10);

/// The data of a `progress` event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProgressEvent {
    /// The job.
    pub job_id: String,
    /// `QUEUED`, `RUNNING`, `VERIFYING` or `REDUCING`.
    pub status: String,
    /// The same in lower case.
    pub phase: String,
    /// Time since acceptance, milliseconds.
    pub elapsed_ms: u64,
    /// The job it repeats; only a replay has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// How far it is.
    #[serde(flatten)]
    pub progress: ProgressBlock,
}

/// A job's progress: `progress` events, then one `finished` event whose data is the job document.
///
/// A hub that stops sends `stopping` instead and ends the stream; the job goes on when the hub is back, and so does the
/// stream from `Last-Event-ID`.
///
/// Ids rise; `Last-Event-ID` leaves out what was seen. A comment line every ten seconds keeps the connection. A
/// listener that leaves changes nothing. Of a job that is over only `finished` comes, and the stream ends. Where the key
/// is revoked or expires meanwhile, the stream ends with an `error` event whose data is the problem (401).
#[utoipa::path(
    get, path = "/api/v0/jobs/{id}/events", tag = "jobs", security(("bearer" = []), ("key" = [])),
    params(("id" = String, Path, description = "The hub's job id"), ("Last-Event-ID" = Option<u64>, Header, description = "The last id seen")),
    responses(
        (status = 200, description = "Events", body = ProgressEvent, content_type = "text/event-stream"),
        (status = 401, body = ProblemBody), (status = 404, body = ProblemBody)
    )
)]
pub async fn events(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<TraceId>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require(Scope::Read)?;
    let job = job_id(&id)?;
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(live) = app.coordinator.board().job_of(&caller.project, job) {
        return Ok(sse(follow(&live, seen, app.stopping.clone(), (caller, trace.0))));
    }
    let row = app.store.job(&caller.project, job).await?.ok_or_else(|| Problem::not_found("job"))?;
    let id = row.finished_ms.unwrap_or(0);
    let finished = Event::default().event("finished").id(id.to_string()).data(row.document.unwrap_or_default());
    Ok(sse(stream::iter([Ok(finished)])))
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")).into_response()
}

/// The last event of a hub that stops.
#[derive(Clone, Debug, Serialize)]
struct StoppingEvent {
    job_id: String,
    code: &'static str,
    detail: &'static str,
}

impl StoppingEvent {
    fn of(live: &LiveJob) -> Self {
        Self {
            job_id: live.info.job.to_string(),
            code: FailureCode::SchedulingShutdown.as_str(),
            detail: "the hub is stopping; the job is recorded and goes on when the hub is back",
        }
    }
}

struct Listener {
    live: Arc<LiveJob>,
    progress: watch::Receiver<Stamped>,
    ended: watch::Receiver<Option<Arc<Ended>>>,
    stopping: CancellationToken,
    /// Resolves when the caller's key works no more.
    lapsed: Pin<Box<dyn Future<Output = ()> + Send>>,
    trace: String,
    seen: Option<u64>,
    over: bool,
}

fn follow(
    live: &Arc<LiveJob>,
    seen: Option<u64>,
    stopping: CancellationToken,
    (caller, trace): (Caller, String),
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let mut progress = live.progress();
    // What is there now counts as news, unless the caller has seen it.
    progress.mark_changed();
    let lapsed = Box::pin(async move { caller.lapsed().await });
    let (live, ended) = (Arc::clone(live), live.ended());
    let listener = Listener { live, progress, ended, stopping, lapsed, trace, seen, over: false };
    stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    })
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        while !self.over {
            let Self { progress, ended, stopping, lapsed, .. } = self;
            // The guard of a watched value must not outlive its future.
            let ended = async { ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone()) };
            tokio::select! {
                biased;
                ended = ended => {
                    let ended = ended?;
                    self.over = true;
                    let id = ended.document.finished_at_ms.unwrap_or(0);
                    return Some(Event::default().event("finished").id(id.to_string()).data(&*ended.text));
                }
                () = lapsed => {
                    self.over = true;
                    return Event::default().event("error").json_data(super::auth::lapsed().body(&self.trace)).ok();
                }
                changed = progress.changed() => {
                    changed.ok()?;
                    let stamped = self.progress.borrow_and_update().clone();
                    if self.seen.is_none_or(|seen| stamped.id > seen) {
                        self.seen = Some(stamped.id);
                        return self.shown(&stamped);
                    }
                }
                () = stopping.cancelled() => {
                    self.over = true;
                    // Without an id: where the listener goes on from stays as it is.
                    return Event::default().event("stopping").json_data(StoppingEvent::of(&self.live)).ok();
                }
            }
        }
        None
    }

    fn shown(&self, stamped: &Stamped) -> Option<Event> {
        let data = ProgressEvent {
            job_id: self.live.info.job.to_string(),
            status: status_word(stamped.snapshot.phase).into(),
            phase: status_word(stamped.snapshot.phase).to_lowercase(),
            elapsed_ms: crate::clock::unix_ms().saturating_sub(self.live.info.accepted_ms),
            replay_of: self.live.info.replay_of.map(|of| of.to_string()),
            progress: progress_block(&stamped.snapshot),
        };
        Event::default().event("progress").id(stamped.id.to_string()).json_data(data).ok()
    }
}
