//! One lease from receipt to report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use forge_contract::limits::{DETAIL_BYTES_MAX, LOG_BYTES_MAX};
use forge_contract::report::{Outcome, Report};
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{Digest, Failure, FailureCode, LeaseId};
use forge_protocol::message::{FRAGMENT_BYTES_MAX, Load};
use forge_protocol::{LinkError, ShardResponder};
use forge_sandbox::{Inputs, ShardResult, Worker, WorkerError};
use forge_telemetry::{Kind, Span, Telemetry};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::Instrument as _;

use crate::bench::{Bench, Bond, Seat};
use crate::components::Components;
use crate::limits::Memory;

/// Between two progress messages of a shard.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What all leases of an agent share.
pub(crate) struct Shop {
    pub bench: Arc<Bench>,
    pub components: Components,
    pub memory: Memory,
    pub engine: Digest,
    pub counts: Counts,
    /// Who this is, for logs.
    pub agent: String,
    pub telemetry: Telemetry,
}

/// What is in hand, for the heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    running: AtomicU32,
    waiting: AtomicU32,
    completed: AtomicU64,
    failed: AtomicU64,
    declined: AtomicU64,
    /// Bytes of components and inputs that were fetched.
    pub fetched: Arc<AtomicU64>,
}

impl Counts {
    pub fn load(&self, memory_free_bytes: u64) -> Load {
        Load {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            memory_free_bytes,
        }
    }

    /// Shards computed, shards failed, leases given back, since the start.
    pub fn ended(&self) -> (u64, u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.completed), count(&self.failed), count(&self.declined))
    }

    /// Bytes of components and inputs fetched since the start.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Counts a lease that is given back.
    pub fn decline(&self) {
        self.declined.fetch_add(1, Ordering::Relaxed);
    }
}

/// One in a count, while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A lease that was received.
pub(crate) struct Received {
    pub lease: LeaseId,
    pub task: Task,
    pub deadline: Duration,
    pub trace: TraceContext,
    pub responder: ShardResponder,
}

/// Serves a lease until it is answered, taken back, or, before it runs, given back because the agent drains.
pub(crate) async fn serve(shop: Arc<Shop>, received: Received, draining: watch::Receiver<bool>) {
    let Received { lease, task, trace, .. } = &received;
    let span = tracing::info_span!(
        "shard", job = %task.job, stage = task.stage_index, shard = task.shard, %lease, agent = shop.agent,
        trace_id = trace.trace_id()
    );
    let revoked = received.responder.revoked();
    let serving = async {
        let served = tokio::select! {
            biased;
            served = answer(&shop, received, draining) => served,
            () = revoked => {
                tracing::debug!("a lease was taken back");
                return;
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a report was not delivered");
        }
    };
    serving.instrument(span).await;
}

/// What is told of a lease while it is served: its spans, within the hub's for it.
struct Told<'a> {
    telemetry: &'a Telemetry,
    /// The span of the whole.
    whole: TraceContext,
    parent: [u8; 8],
    began: SystemTime,
}

impl<'a> Told<'a> {
    fn new(telemetry: &'a Telemetry, trace: TraceContext, lease: LeaseId) -> Self {
        let whole = trace.child("agent", lease.0.into());
        Self { telemetry, whole, parent: trace.span, began: SystemTime::now() }
    }

    /// A part of it is over.
    fn part(&self, name: &'static str, from: SystemTime) {
        if self.telemetry.is_on() {
            let context = self.whole.child(name, 0);
            let (parent, until) = (self.whole.span, SystemTime::now());
            let (name, attributes) = (name.to_owned(), Vec::new());
            self.telemetry.record(Span {
                name,
                kind: Kind::Internal,
                context,
                parent,
                from,
                until,
                attributes,
                failed: None,
            });
        }
    }

    /// It is over.
    fn end(&self, shop: &Shop, task: &Task, result: &ShardResult) {
        let failed = match &result.outcome {
            Outcome::Failed(failure) => Some(failure.code.as_str().to_owned()),
            Outcome::Completed(_) | Outcome::Checked(_) => None,
        };
        tracing::debug!(units = task.unit_count, wall_us = result.usage.wall_us, code = failed, "shard ended");
        if !result.log.is_empty() {
            tracing::debug!(log = result.log, "the kernel said");
        }
        if self.telemetry.is_on() {
            let attributes = vec![
                ("forgepool.job", task.job.to_string().into()),
                ("forgepool.stage", u64::from(task.stage_index).into()),
                ("forgepool.shard", u64::from(task.shard).into()),
                ("forgepool.agent", shop.agent.as_str().into()),
                ("forgepool.units", task.unit_count.into()),
            ];
            let (context, parent) = (self.whole, self.parent);
            let (from, until) = (self.began, SystemTime::now());
            let name = "execute shard".to_owned();
            self.telemetry.record(Span { name, kind: Kind::Server, context, parent, from, until, attributes, failed });
        }
    }
}

async fn answer(shop: &Shop, received: Received, mut draining: watch::Receiver<bool>) -> Result<(), LinkError> {
    let Received { lease, task, deadline, trace, mut responder } = received;
    let told = Told::new(&shop.telemetry, trace, lease);
    let due = Instant::now() + deadline;
    let waiting = Counted::new(&shop.counts.waiting);
    let began = Instant::now();
    let prepared = tokio::select! {
        prepared = tokio::time::timeout(deadline, prepare(shop, &task)) => prepared,
        () = drains(&mut draining) => {
            shop.counts.decline();
            responder.decline();
            return Ok(());
        }
    };
    drop(waiting);
    told.part("prepare", told.began);
    let prepare_us = micros(began.elapsed());
    let mut result = match prepared {
        Ok(Ok(Prepared { seat, inputs, code, memory })) => {
            let _running = Counted::new(&shop.counts.running);
            let from = SystemTime::now();
            let result = run(shop, &task, seat, &inputs, &code, due, &mut responder).await;
            told.part("run in the sandbox", from);
            drop(memory);
            result
        }
        Ok(Err(failure)) => ShardResult::failed(failure),
        Err(_) => {
            let detail = format!("the shard was not begun within {} ms", deadline.as_millis());
            ShardResult::failed(Failure::new(FailureCode::AgentDeadline, detail))
        }
    };
    let count = if matches!(result.outcome, Outcome::Failed(_)) { &shop.counts.failed } else { &shop.counts.completed };
    count.fetch_add(1, Ordering::Relaxed);
    result.usage.prepare_us = prepare_us;
    told.end(shop, &task, &result);
    responder.report(report(shop, lease, &task, result)).await
}

async fn drains(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        core::future::pending().await
    }
}

/// What a shard needs to run.
struct Prepared {
    seat: Seat,
    inputs: Inputs,
    code: bytes::Bytes,
    memory: Option<OwnedSemaphorePermit>,
}

/// Gets what the shard needs, then room in memory, then a seat: a seat waits for nothing.
async fn prepare(shop: &Shop, task: &Task) -> Result<Prepared, Failure> {
    let (code, inputs) = tokio::try_join!(shop.components.code(task), shop.components.inputs(task))?;
    let memory = shop.memory.room(task).await;
    let seat = shop.bench.seat(Bond { job: task.job, component: task.component }).await;
    Ok(Prepared { seat, inputs, code, memory })
}

async fn run(
    shop: &Shop,
    task: &Task,
    mut seat: Seat,
    inputs: &Inputs,
    code: &[u8],
    due: Instant,
    responder: &mut ShardResponder,
) -> ShardResult {
    let bond = Bond { job: task.job, component: task.component };
    let mut worker = match seat.take(bond, code).await {
        Ok(worker) => worker,
        Err(error) => {
            if matches!(error, WorkerError::Load(_)) {
                // Perhaps only the cached code is bad: the next lease compiles anew.
                shop.components.spoil(&task.component);
            }
            return ShardResult::failed(error.into());
        }
    };
    let left = due.saturating_duration_since(Instant::now());
    match drive(&mut worker, task, inputs, left, responder).await {
        Ok(result) => {
            seat.keep(bond, worker);
            result
        }
        Err(error) => {
            tracing::warn!(%error, "a worker gave no answer");
            ShardResult::failed(error.into())
        }
    }
}

/// Runs the shard and passes progress on.
async fn drive(
    worker: &mut Worker,
    task: &Task,
    inputs: &Inputs,
    deadline: Duration,
    responder: &mut ShardResponder,
) -> Result<ShardResult, WorkerError> {
    let (tell, mut told) = watch::channel(0);
    let running = worker.run(task, inputs, deadline, &tell);
    let passing = async {
        while told.changed().await.is_ok() {
            let units_done = *told.borrow_and_update();
            if responder.progress(units_done).await.is_err() {
                break;
            }
            tokio::time::sleep(PROGRESS_EVERY).await;
        }
        // Taken back, which the caller notices by itself.
        core::future::pending().await
    };
    tokio::select! {
        result = running => result,
        () = passing => Err(WorkerError::Busy),
    }
}

fn report(shop: &Shop, lease: LeaseId, task: &Task, result: ShardResult) -> Report {
    let ShardResult { outcome, mut log, usage } = result;
    cut(&mut log, LOG_BYTES_MAX);
    let outcome = match outcome {
        Outcome::Completed(completed) if completed.fragment.len() as u64 > FRAGMENT_BYTES_MAX => {
            let detail =
                format!("the shard's fragment has {} bytes, more than {FRAGMENT_BYTES_MAX}", completed.fragment.len());
            Outcome::Failed(Failure::new(FailureCode::AgentOutputTooLarge, detail))
        }
        Outcome::Failed(mut failure) => {
            cut(&mut failure.detail, DETAIL_BYTES_MAX);
            Outcome::Failed(failure)
        }
        Outcome::Checked(mut checked) => {
            checked.shorten();
            Outcome::Checked(checked)
        }
        completed @ Outcome::Completed(_) => completed,
    };
    Report { lease, task: task.key_digest(), engine: shop.engine, outcome, usage, log }
}

/// Cuts a text to at most `bytes` bytes, between two characters.
fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let mut text = "aé".to_owned();
        cut(&mut text, 2);
        assert_eq!(text, "a");
        cut(&mut text, 5);
        assert_eq!(text, "a");
    }
}
