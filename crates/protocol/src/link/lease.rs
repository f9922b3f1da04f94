//! One lease at the hub: the shard goes out, progress and a report come in and are verified.

use std::sync::Arc;

use forge_contract::report::Report;
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{FailureCode, LeaseId};
use quinn::{RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;

use super::code;
use super::hub::{Hub, LinkEvent};
use super::session::HubSession;
use super::stream::{self, StreamError};
use crate::frame::{self, FrameError};
use crate::message::{FRAGMENT_BYTES_MAX, Kind, LeaseRef, Progress, ReportHead, Signature};
use crate::session::{SessionError, ShardAnswer};

/// Fragments up to this size are read without asking for room.
const SMALL_BYTES: u64 = 64 << 10;
/// Reports above this size are hashed away from the runtime's threads.
const HEAVY_BYTES: usize = 512 << 10;

/// Why a lease has no report.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Order(#[from] SessionError),
    #[error("a fragment of {bytes} bytes exceeds {max}")]
    Fragment { bytes: u64, max: u64 },
    #[error("bytes follow the report")]
    Trailing,
    #[error("the report is for another task")]
    OtherTask,
    #[error("the report's signature is not the agent's")]
    Signature,
    #[error("the hub is stopping")]
    Stopping,
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Stream(error.into())
    }
}

/// Both halves of a shard stream. Dropped at any point, it takes the lease back.
struct ShardStream {
    send: SendStream,
    recv: RecvStream,
    sent: bool,
    answered: bool,
}

impl Drop for ShardStream {
    fn drop(&mut self) {
        if !self.sent {
            let _ = self.send.reset(code::REVOKED);
        }
        if !self.answered {
            let _ = self.recv.stop(code::REVOKED);
        }
    }
}

/// Carries a lease to its end and says what became of it, unless the session itself ended.
pub(super) async fn carry(
    hub: Arc<Hub>,
    session: Arc<HubSession>,
    lease: LeaseId,
    task: Arc<Task>,
    terms: (u64, TraceContext),
) {
    let outcome = converse(&hub, &session, lease, &task, terms).await;
    session.forget(lease);
    let number = session.number;
    let delivery = match outcome {
        Ok((report, signature, permit)) => (LinkEvent::Report { session: number, report, signature }, permit),
        Err(Broken::Stream(StreamError::Lost(_)) | Broken::Stopping) => return,
        Err(Broken::Stream(StreamError::GivenUp { code: found })) if found == code::DECLINED => {
            let detail = "the agent gave the lease back".to_owned();
            (LinkEvent::LeaseBroken { session: number, lease, code: FailureCode::AgentDeclined, detail }, None)
        }
        Err(broken) => {
            let detail = broken.to_string();
            (LinkEvent::LeaseBroken { session: number, lease, code: FailureCode::AgentProtocol, detail }, None)
        }
    };
    let _ = hub.events.send(delivery).await;
}

async fn converse(
    hub: &Hub,
    session: &HubSession,
    lease: LeaseId,
    task: &Task,
    (deadline_ms, trace): (u64, TraceContext),
) -> Result<(Report, Signature, Option<OwnedSemaphorePermit>), Broken> {
    let frame = frame::encode_as(Kind::Lease, &LeaseRef { lease, deadline_ms, trace, task })?;
    let (send, recv) = session.connection.open_bi().await.map_err(StreamError::Lost)?;
    let mut stream = ShardStream { send, recv, sent: false, answered: false };
    stream.send.write_all(&frame).await.map_err(StreamError::from)?;
    drop(frame);
    let _ = stream.send.finish();
    stream.sent = true;

    let head = answer(hub, session, lease, task, &mut stream.recv).await?;
    let permit = room(hub, &head).await?;
    let mut fragment = Vec::new();
    let bytes = usize::try_from(head.fragment_bytes()).map_err(|_| StreamError::Short)?;
    fragment.reserve_exact(bytes);
    stream::read_into(&mut stream.recv, &mut fragment, bytes).await?;
    if stream.recv.read_chunk(1, true).await.map_err(StreamError::from)?.is_some() {
        return Err(Broken::Trailing);
    }
    stream.answered = true;

    let (report, signature) = head.join(fragment);
    if report.task != task.key_digest() {
        return Err(Broken::OtherTask);
    }
    let report = verified(session, report, signature, bytes).await?;
    Ok((report, signature, permit))
}

/// Passes progress on until the report's head is there.
async fn answer(
    hub: &Hub,
    session: &HubSession,
    lease: LeaseId,
    task: &Task,
    recv: &mut RecvStream,
) -> Result<ReportHead, Broken> {
    let mut answer = ShardAnswer::new(lease, task.unit_count);
    loop {
        let (kind, body) = stream::read_frame(recv, answer.legal()).await?;
        if kind == Kind::Report {
            let head: ReportHead = frame::decode(&body)?;
            answer.report(head.lease)?;
            return Ok(head);
        }
        let progress: Progress = frame::decode(&body)?;
        if answer.progress(progress)? {
            let units_done = progress.units_done;
            hub.send(LinkEvent::Progress { session: session.number, lease, units_done }).await;
        }
    }
}

/// Waits until a large fragment may take memory; the permit goes with the event until it is taken.
async fn room(hub: &Hub, head: &ReportHead) -> Result<Option<OwnedSemaphorePermit>, Broken> {
    let bytes = head.fragment_bytes();
    if bytes > FRAGMENT_BYTES_MAX {
        return Err(Broken::Fragment { bytes, max: FRAGMENT_BYTES_MAX });
    }
    if bytes <= SMALL_BYTES {
        return Ok(None);
    }
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(hub.settings.fragment_bytes);
    hub.fragments.clone().acquire_many_owned(permits).await.map(Some).map_err(|_| Broken::Stopping)
}

async fn verified(session: &HubSession, report: Report, signature: Signature, bytes: usize) -> Result<Report, Broken> {
    let verifier = session.verifier.clone();
    let check = move || {
        let right = verifier.verify(report.statement().as_bytes(), &signature.0);
        right.then_some(report).ok_or(Broken::Signature)
    };
    if bytes <= HEAVY_BYTES {
        return check();
    }
    tokio::task::spawn_blocking(check).await.map_err(|_| Broken::Stopping)?
}
