//! Finished jobs that rested on an agent refuted since: their doubtful shards run again, and the hub says what came of it.
//!
//! What is to be done stands in the store, written with the quarantine itself; this only takes it up. A run is a job of
//! its own that goes on from what the other one accepted, as after a restart, without what rests on agents that are out.

use std::collections::BTreeSet;
use std::time::Duration;

use forge_contract::failure::Blame;
use forge_contract::{AgentId, Digest, LeaseId};
use forge_lifecycle::action::{Accepted, JobOutcome};
use forge_lifecycle::artifact::Artifact;
use forge_lifecycle::books::Pay;
use forge_lifecycle::bundle::erratum::{Erratum, ErratumVerdict, FORMAT, Finding, MEDIA_TYPE};
use forge_lifecycle::bundle::leaf;
use forge_lifecycle::plan::Plan;
use forge_lifecycle::settle::{Backed, Share, shares, tainted};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::board::JobInfo;
use super::{Command, Surroundings, acceptance, repeat, restore};
use crate::store::settlement::DoubtfulJob;
use crate::store::{
    ErratumEnd, ErratumOf, NewErratum, NewJob, NewStake, Page, RestoredJob, StoreError, Write, Written,
};

const PAGE: u32 = 4096;
/// Erratum runs at one time: an agent may have been in thousands of jobs.
const RUNS_MAX: usize = 16;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Stakes that settled.
    pub settled: u64,
    /// Erratum runs begun.
    pub errata: u64,
}

/// Settles what is due and takes up doubts.
pub(super) struct Settler {
    around: Surroundings,
    commands: mpsc::WeakSender<Command>,
    pub(super) stopping: CancellationToken,
}

impl Settler {
    pub(super) fn new(around: Surroundings, commands: mpsc::WeakSender<Command>) -> Self {
        Self { around, commands, stopping: CancellationToken::new() }
    }

    /// Sweeps at once, whatever waits for a later try, then whenever there is news and every so often, until the hub stops.
    pub(super) async fn attend(&self, every: Duration) {
        let (mut all, mut ticker) = (true, tokio::time::interval_at(tokio::time::Instant::now() + every, every));
        loop {
            if let Err(error) = self.sweep(all).await {
                tracing::error!(%error, "what is due could not be settled; it is tried again");
            }
            all = false;
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.around.doubts.notified() => {}
                _ = ticker.tick() => {}
            }
        }
    }

    /// Sweeps soon.
    pub(super) fn wake(&self) {
        self.around.doubts.notify_one();
    }

    /// Settles what is due by now and begins the erratum runs that are; `all`: also those that wait for a later try.
    pub(super) async fn sweep(&self, all: bool) -> Result<Swept, StoreError> {
        let (store, now_ms) = (&self.around.store, crate::clock::unix_ms());
        let mut swept = Swept::default();
        if let Written::Settled(settled) = store.submit(Write::Settle { policy: self.around.settle, now_ms }).await? {
            swept.settled = settled;
        }
        let doubtful = store.doubtful(if all { u64::MAX } else { now_ms }).await?;
        if doubtful.is_empty() {
            return Ok(swept);
        }
        let agents = store.agents().await?.into_iter();
        let out = agents.filter(|row| row.quarantined.is_some() || row.removed_ms.is_some());
        let out: BTreeSet<AgentId> = out.map(|row| row.agent).collect();
        for job in doubtful {
            if self.stopping.is_cancelled() || self.running() >= RUNS_MAX {
                break;
            }
            let of = job.job;
            match self.begin(job, &out).await {
                Ok(begun) => swept.errata += u64::from(begun),
                // One job that cannot be read must not keep the others waiting.
                Err(error) => tracing::error!(job = %of, %error, "an erratum run could not begin; it is tried again"),
            }
        }
        Ok(swept)
    }

    /// Erratum runs under way. Each one's end looks for the next doubt.
    fn running(&self) -> usize {
        self.around.board.all().iter().filter(|live| live.info.erratum.is_some()).count()
    }

    /// Begins the erratum run of a job; false where nothing in it rests on anybody who is out.
    async fn begin(&self, doubtful: DoubtfulJob, out: &BTreeSet<AgentId>) -> Result<bool, StoreError> {
        let (store, of) = (&self.around.store, doubtful.job);
        let origin = store.origin(of).await?.ok_or(StoreError::Corrupt { what: "plan of a doubtful job" })?;
        let accepted = self.accepted(&doubtful).await?;
        let is_out = |agent: &AgentId| out.contains(agent) || doubtful.agents.contains(agent);
        let after = accepted.iter().map(|shard| shard.lease.0).max().unwrap_or(0);
        let Some((stage, shards)) = tainted(accepted.iter().map(placed), is_out) else {
            store.submit(Write::VoidErrata { job: of }).await?;
            return Ok(false);
        };
        let job = crate::clock::job_id();
        let again = shards.len();
        let stored = RestoredJob {
            job,
            accepted_ms: crate::clock::unix_ms(),
            erratum: Some(ErratumOf { of, after: LeaseId(after) }),
            ..origin
        };
        let stored = self.bound(stored).await?;
        let run = new_job(&stored)?;
        let new = NewErratum { run, of, stage, shards, after };
        if store.submit(Write::BeginErratum(Box::new(new))).await? != Written::Applied(true) {
            return Ok(false);
        }
        tracing::warn!(job = %of, run = %job, stage, shards = again, "doubtful shards run again");
        // From here on a hub that dies finds the run among its unfinished jobs.
        if let (Some(restored), Some(commands)) =
            (restore::take_up(&self.around, &stored).await?, self.commands.upgrade())
        {
            drop(commands.send(Command::Adopt(Box::new(restored))).await);
        }
        Ok(true)
    }

    /// The same, where its project's jobs may run by now.
    async fn bound(&self, stored: RestoredJob) -> Result<RestoredJob, StoreError> {
        let Some(project) = self.around.store.project(&stored.project).await? else { return Ok(stored) };
        let unreadable = |_| StoreError::Corrupt { what: "plan of a doubtful job" };
        let mut plan: Plan = serde_json::from_str(&stored.plan).map_err(unreadable)?;
        plan.terms.requires = project.binding.requires();
        Ok(RestoredJob { plan: serde_json::to_string(&plan).map_err(unreadable)?, ..stored })
    }

    /// What a finished job accepted, without the fragments.
    async fn accepted(&self, doubtful: &DoubtfulJob) -> Result<Vec<Accepted>, StoreError> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let bodies = self.around.store.accepted_bodies(doubtful.job, Page { offset, limit: PAGE }).await?;
            offset += bodies.len() as u64;
            for body in &bodies {
                // What cannot be read is no reason to let a doubt go.
                let accepted = acceptance::accepted_of(body).ok_or(StoreError::Corrupt { what: "accepted shard" })?;
                all.push(accepted);
            }
            if bodies.len() < PAGE as usize {
                return Ok(all);
            }
        }
    }
}

impl core::fmt::Debug for Settler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Settler").finish_non_exhaustive()
    }
}

fn placed(shard: &Accepted) -> ((u32, u32), Backed<'_>) {
    ((shard.stage, shard.shard), Backed::of(shard.agent, &shard.verdict, shard.fuel()))
}

fn new_job(stored: &RestoredJob) -> Result<NewJob, StoreError> {
    let unreadable = StoreError::Corrupt { what: "contract of a doubtful job" };
    let info = restore::info(stored).ok_or(unreadable)?;
    let envelope_digest = info.envelope.digest();
    Ok(NewJob {
        job: stored.job,
        project: stored.project.clone(),
        client_job_id: stored.client_job_id.clone(),
        trace_id: stored.trace_id.clone(),
        op: stored.op.clone(),
        envelope: stored.envelope.clone(),
        envelope_digest,
        plan: stored.plan.clone(),
        accepted_ms: stored.accepted_ms,
        idempotency_key: None,
        request_digest: envelope_digest,
        replay_of: stored.replay_of,
        content: info.plan.content().into_iter().collect(),
        // The platform pays for its own errata.
        charge: None,
    })
}

/// What of a job's result rests on whom, and what each of them earns. Nothing where nobody is paid.
pub(super) fn stakes(shards: &[Backed<'_>], pay: &[Pay]) -> Vec<NewStake> {
    let stake = |(agent, share): (AgentId, Share)| {
        let earned = pay.iter().find(|pay| pay.agent == agent);
        NewStake { agent, share, credits_micro: earned.map_or(0, Pay::micro) }
    };
    shares(shards.iter().copied()).into_iter().map(stake).collect()
}

/// What an erratum run found, and its signed record. `None` where it has to be tried again.
pub(super) async fn found(
    around: &Surroundings,
    info: &JobInfo,
    outcome: &JobOutcome,
    at_ms: u64,
) -> Result<Option<(ErratumEnd, Artifact)>, StoreError> {
    let Some(ErratumOf { of, .. }) = info.erratum else { return Ok(None) };
    let (after, code) = match outcome {
        JobOutcome::Completed(completed) => (Some(completed.result_digest), None),
        // Every honest agent says so: whoever answered made its answer up.
        JobOutcome::Failed { failure, .. } if failure.code.blame() == Blame::Kernel => (None, Some(failure.code)),
        JobOutcome::Failed { .. } | JobOutcome::Cancelled { .. } => return Ok(None),
    };
    let before: Option<Digest> = repeat::recorded_result(around, info, of).await?;
    let verdict = if after.is_some() && after == before { ErratumVerdict::Upheld } else { ErratumVerdict::Corrected };
    let doubts = around.store.errata(of).await?;
    let doubts: Vec<_> = doubts.into_iter().filter(|row| row.run == Some(info.job)).collect();
    let agents: BTreeSet<AgentId> = doubts.iter().map(|row| row.agent).collect();
    let reasons: BTreeSet<String> = doubts.iter().map(|row| row.reason.clone()).collect();
    let finding = Finding {
        format: FORMAT,
        job: of,
        run: info.job,
        agents: agents.into_iter().collect(),
        reasons: reasons.into_iter().collect(),
        shards: doubts.iter().find_map(|row| row.shards).unwrap_or(0),
        verdict,
        before,
        after,
        code,
        at_ms,
    };
    tracing::warn!(job = %of, run = %info.job, verdict = verdict.as_str(), "erratum");
    let sealed = Erratum::seal(finding, around.notary.key(), |root| around.notary.sign(root));
    let artifact = Artifact::new(leaf::ERRATUM, MEDIA_TYPE, sealed.canonical().into_bytes());
    let end = ErratumEnd { verdict, before, after, record: artifact.entry.digest };
    Ok(Some((end, artifact)))
}
