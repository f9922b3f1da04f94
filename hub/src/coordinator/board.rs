//! The jobs in hand, where requests wait for their progress and their end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use forge_contract::envelope::Envelope;
use forge_contract::trace::TraceContext;
use forge_contract::{Digest, FailureCode, JobId, LeaseId};
use forge_lifecycle::action::Snapshot;
use forge_lifecycle::books::budget::OverBudget;
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::plan::{Plan, PlannedSource};
use tokio::sync::watch;

use crate::document::JobDocument;
use crate::store::blobs::Hold;
use crate::store::books::Terms;
use crate::store::{ErratumOf, Phase};

/// What does not change about a job.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// Its id.
    pub job: JobId,
    /// Its project.
    pub project: Arc<str>,
    /// Trace id, as its client calls it.
    pub trace_id: String,
    /// The span it was asked for in.
    pub trace: TraceContext,
    /// The contract.
    pub envelope: Envelope,
    /// The plan, inputs resolved.
    pub plan: Arc<Plan>,
    /// When it was accepted, ms since 1970.
    pub accepted_ms: u64,
    /// What the client should know of the kernel it chose.
    pub notices: Vec<String>,
    /// The job it repeats.
    pub replay_of: Option<JobId>,
    /// The job whose doubtful shards it runs again.
    pub erratum: Option<ErratumOf>,
    /// Digest of the contract as its client sent it: what an idempotency key stands for.
    pub asked: Digest,
    /// The files it runs and reads, held from before they were looked for; none for a job that is recorded already.
    pub held: Arc<Vec<Hold>>,
    /// What was agreed; of an erratum run, for the job behind it.
    pub terms: Terms,
}

impl JobInfo {
    /// The job's own span: the same in every process that works on it.
    #[must_use]
    pub fn span(&self) -> TraceContext {
        self.trace.root().child("job", self.job.bits())
    }
}

/// A job's end, durable before anybody sees it.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub phase: Phase,
    /// Why it failed.
    pub code: Option<FailureCode>,
    /// The answer.
    pub document: Arc<JobDocument>,
    /// The answer as stored.
    pub text: Arc<str>,
}

/// Progress with the id its event has.
#[derive(Clone, Debug, Default)]
pub struct Stamped {
    /// Rises with every change, also over restarts: ms since 1970 at least.
    pub id: u64,
    /// How far.
    pub snapshot: Snapshot,
}

/// A job in hand.
#[derive(Debug)]
pub struct LiveJob {
    /// What does not change.
    pub info: JobInfo,
    over: OnceLock<OverBudget>,
    progress: watch::Sender<Stamped>,
    ended: watch::Sender<Option<Arc<Ended>>>,
}

impl LiveJob {
    /// A job that has just been accepted.
    #[must_use]
    pub fn new(info: JobInfo) -> Arc<Self> {
        let first = Stamped { id: crate::clock::unix_ms(), snapshot: Snapshot::default() };
        Arc::new(Self {
            info,
            over: OnceLock::new(),
            progress: watch::Sender::new(first),
            ended: watch::Sender::new(None),
        })
    }

    /// Its progress, from now on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Stamped> {
        self.progress.subscribe()
    }

    /// Its end, once there is one.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Arc<Ended>>> {
        self.ended.subscribe()
    }

    /// Waits for its end. Whoever stops waiting changes nothing.
    pub async fn wait(&self) -> Option<Arc<Ended>> {
        let mut ended = self.ended.subscribe();
        ended.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Why it is ended: its project could not afford it any longer.
    pub(super) fn over(&self) -> Option<&OverBudget> {
        self.over.get()
    }

    /// Notes that its project cannot afford it any longer.
    pub(super) fn overspend(&self, over: OverBudget) {
        // Noted already is as good.
        let _ = self.over.set(over);
    }

    pub(super) fn advance(&self, snapshot: Snapshot) {
        self.progress.send_modify(|stamped| {
            stamped.id = (stamped.id + 1).max(crate::clock::unix_ms());
            stamped.snapshot = snapshot;
        });
    }

    pub(super) fn end(&self, ended: Ended) {
        self.ended.send_replace(Some(Arc::new(ended)));
    }
}

/// Every job in hand, and the bytes their later stages read.
#[derive(Debug, Default)]
pub struct Board {
    live: Mutex<BTreeMap<JobId, Arc<LiveJob>>>,
    published: Mutex<Published>,
    signed: Mutex<BTreeMap<LeaseId, Signed>>,
}

/// An agent's word for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Engine profile the report names.
    pub engine: Digest,
    /// The agent's key.
    pub key: Key,
    /// Its signature of the report's statement, checked where it arrived.
    pub signature: Signature,
}

/// Signatures kept between a report's arrival and its attempt's record; those of late answers are never asked for.
const SIGNED_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
struct Published {
    objects: HashMap<Digest, (Bytes, usize)>,
    of: HashMap<JobId, Vec<Digest>>,
}

impl Published {
    /// One that published it needs it no longer.
    fn release(&mut self, digest: &Digest) {
        let Some((_, holders)) = self.objects.get_mut(digest) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.objects.remove(digest);
        }
    }
}

impl Board {
    fn live(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<LiveJob>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an agent's word until its attempt is recorded.
    pub fn sign(&self, lease: LeaseId, word: Signed) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.insert(lease, word);
        if signed.len() > SIGNED_MAX {
            signed.pop_first();
        }
    }

    /// Takes the agent's word for the report of a lease.
    #[must_use]
    pub fn take_signed(&self, lease: LeaseId) -> Option<Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease)
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job on the board; returns how many there are.
    pub fn insert(&self, job: &Arc<LiveJob>) -> usize {
        let mut live = self.live();
        live.insert(job.info.job, Arc::clone(job));
        live.len()
    }

    /// Takes a job off the board, and what it published.
    pub fn remove(&self, job: JobId) {
        self.live().remove(&job);
        let mut published = self.published();
        for digest in published.of.remove(&job).unwrap_or_default() {
            published.release(&digest);
        }
    }

    /// Serves bytes no more that this job published, once.
    pub fn withdraw(&self, job: JobId, digest: Digest) {
        let mut published = self.published();
        let Some(of_job) = published.of.get_mut(&job) else { return };
        let Some(at) = of_job.iter().position(|one| *one == digest) else { return };
        of_job.swap_remove(at);
        published.release(&digest);
    }

    /// A job in hand.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<Arc<LiveJob>> {
        self.live().get(&job).cloned()
    }

    /// A job in hand of this project.
    #[must_use]
    pub fn job_of(&self, project: &str, job: JobId) -> Option<Arc<LiveJob>> {
        self.job(job).filter(|live| &*live.info.project == project)
    }

    /// Every job in hand.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<LiveJob>> {
        self.live().values().cloned().collect()
    }

    /// Whether a job in hand reads this object as an input, or runs it: a replay's component may no longer be on offer.
    #[must_use]
    pub fn reads(&self, digest: &Digest) -> bool {
        let inputs = |job: &Arc<LiveJob>| {
            if job.info.plan.component == *digest {
                return true;
            }
            let mut sources = job.info.plan.stages.iter().flat_map(|stage| &stage.inputs).map(|input| &input.source);
            sources.any(|source| matches!(source, PlannedSource::Content { digest: one, .. } if one == digest))
        };
        self.live().values().any(inputs)
    }

    /// Serves bytes to agents while the job is in hand.
    pub fn publish(&self, job: JobId, digest: Digest, bytes: &[u8]) {
        let mut published = self.published();
        let entry = published.objects.entry(digest).or_insert_with(|| (Bytes::copy_from_slice(bytes), 0));
        entry.1 += 1;
        published.of.entry(job).or_default().push(digest);
    }

    /// Bytes a job in hand published.
    #[must_use]
    pub fn object(&self, digest: &Digest) -> Option<Bytes> {
        self.published().objects.get(digest).map(|(bytes, _)| bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_jobs_publish_stays_until_both_are_over() {
        let board = Board::default();
        let (one, two) = (JobId::new(1, 1), JobId::new(2, 2));
        let digest = Digest::of(b"x");
        board.publish(one, digest, b"x");
        board.publish(two, digest, b"x");
        board.remove(one);
        assert_eq!(board.object(&digest).as_deref(), Some(&b"x"[..]));
        board.remove(two);
        assert_eq!(board.object(&digest), None);
        board.publish(one, digest, b"x");
        board.publish(two, digest, b"x");
        board.withdraw(one, digest);
        board.withdraw(one, digest);
        assert_eq!(board.object(&digest).as_deref(), Some(&b"x"[..]), "the other job's stays");
        board.withdraw(two, digest);
        assert_eq!(board.object(&digest), None);
    }
}
