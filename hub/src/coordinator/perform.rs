//! Performing the pool's actions: dispatch, record, tell, finish.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use forge_contract::envelope::VerifyMode;
use forge_contract::failure::Blame;
use forge_contract::report::Usage;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Digest, JobId};
use forge_lifecycle::action::{Accepted, Action, Attempt, Ending, Forgotten, JobOutcome, Record};
use forge_lifecycle::bundle::leaf::ShardRecord;
use forge_lifecycle::event::Event;
use forge_lifecycle::settle::Backed;
use forge_lifecycle::verify::Standing;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::board::LiveJob;
use super::execution::{Execution, SUPERSEDED, ending_word, reason_word, row_of};
use super::money::Meter;
use super::{Command, News, Surroundings, acceptance, drain, evidence, finish, restore, spans};
use crate::metrics::Label;
use crate::store::books::{BooksWrite, BooksWritten};
use crate::store::{AcceptedRow, AgentEvent, AgentEventKind, Write, Written};

/// Executions kept in memory for a job's evidence; beyond that they are read back from the store.
const LINES_MAX: usize = 2048;

/// Accepted shards until agents' records are written.
const CLEAN_MAX: u64 = 512;

/// Unit records kept in memory for a job's evidence; beyond that they are read back from the store.
const UNITS_MAX: u64 = 16_384;

/// Accepted shards by (stage, shard).
pub(super) type Shards = BTreeMap<(u32, u32), ShardRecord>;

/// An attempt's place (stage, shard, lease) and its JSON.
pub(super) type Line = ((u32, u32, u64), String);

/// What is counted about a job while it runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Attempts that ended.
    pub(super) attempts: u64,
    /// Each attempt's JSON; `None` once there are too many to keep.
    pub(super) lines: Option<Vec<Line>>,
    /// Accepted shards; `None` once they have too many units to keep.
    pub(super) shards: Option<Shards>,
    /// How many units they have.
    units_kept: u64,
    /// Engine profiles of accepted shards.
    pub(super) engines: BTreeSet<Digest>,
    /// Wall time of accepted shards, microseconds.
    pub(super) wall_us: u64,
    /// Processor time of accepted shards, microseconds.
    pub(super) cpu_us: u64,
    /// What it burned so far, against what is set aside for it.
    pub(super) meter: Meter,
}

impl Tally {
    fn accepted(&mut self, accepted: &Accepted, fragment: Digest) {
        self.engines.insert(accepted.engine);
        self.wall_us = self.wall_us.saturating_add(accepted.usage.wall_us);
        self.cpu_us = self.cpu_us.saturating_add(accepted.usage.cpu_us);
        self.units_kept = self.units_kept.saturating_add(accepted.units.len() as u64);
        self.meter.count(Backed::of(accepted.agent, &accepted.verdict, accepted.fuel()));
        if self.units_kept > UNITS_MAX {
            self.shards = None;
        } else if let Some(shards) = &mut self.shards {
            shards.insert((accepted.stage, accepted.shard), evidence::shard_record(accepted, fragment, 0));
        }
    }

    /// Takes back what nobody stands behind any more, and what was made of it. Workers' time stays: it was spent.
    fn forget(&mut self, forgotten: &Forgotten) {
        let stage = forgotten.stage;
        let gone = |of: u32, shard: u32| of > stage || (of == stage && forgotten.shards.binary_search(&shard).is_ok());
        if let Some(shards) = &mut self.shards {
            shards.retain(|(of, shard), _| !gone(*of, *shard));
        }
    }

    /// Takes back what was accepted beyond the end of a stage: its shards from this one on.
    fn superseded(&mut self, stage: u32, shard: u32, usage: Usage) {
        self.wall_us = self.wall_us.saturating_sub(usage.wall_us);
        self.cpu_us = self.cpu_us.saturating_sub(usage.cpu_us);
        if let Some(shards) = &mut self.shards {
            shards.retain(|(of, at), _| *of != stage || *at < shard);
        }
        let lines = self.lines.iter_mut().flatten();
        for (_, line) in lines.filter(|((of, at, _), _)| *of == stage && *at >= shard) {
            let reported = serde_json::from_str::<Execution>(line)
                .ok()
                .filter(|execution| execution.status == ending_word(Ending::Reported));
            if let Some(execution) = reported {
                // A struct of texts and integers always has a JSON form.
                *line =
                    serde_json::to_string(&Execution { status: SUPERSEDED.into(), ..execution }).unwrap_or_default();
            }
        }
    }
}

/// The word of what was checked of a shard, from a closed set.
const fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Structural => "structural",
        Standing::Matched => "matched",
        Standing::Unchecked => "unchecked",
        Standing::Sampled => "sampled",
        Standing::Checked => "checked",
    }
}

/// Performs actions. Nothing here blocks or awaits: writes are queued, ends are tasks of their own.
pub(super) struct Performer {
    around: Surroundings,
    completions: TaskTracker,
    tallies: HashMap<JobId, Tally>,
    commands: mpsc::WeakSender<Command>,
    /// Shards accepted from each agent since its record was last written.
    clean: BTreeMap<AgentId, u64>,
    clean_total: u64,
}

impl Performer {
    pub(super) fn new(around: Surroundings, completions: TaskTracker, commands: mpsc::WeakSender<Command>) -> Self {
        Self { around, completions, tallies: HashMap::new(), commands, clean: BTreeMap::new(), clean_total: 0 }
    }

    /// Counts an accepted shard for whoever stands behind it. Written now and then: a record that is a little short only
    /// means a few more audits.
    fn note_clean(&mut self, accepted: &Accepted) {
        let live = self.around.board.job(accepted.job);
        let sampled = live.is_some_and(|live| live.info.plan.verify == VerifyMode::None);
        match accepted.verdict.standing {
            Standing::Matched => {}
            Standing::Structural | Standing::Sampled | Standing::Checked if !sampled => {}
            Standing::Structural | Standing::Sampled | Standing::Checked | Standing::Unchecked => return,
        }
        for agent in std::iter::once(&accepted.agent).chain(&accepted.verdict.agreed) {
            *self.clean.entry(*agent).or_default() += 1;
            self.clean_total += 1;
        }
        if self.clean_total >= CLEAN_MAX {
            self.write_clean();
        }
    }

    fn write_clean(&mut self) {
        self.clean_total = 0;
        let shards: Vec<(AgentId, u64)> = std::mem::take(&mut self.clean).into_iter().collect();
        if !shards.is_empty() {
            shards.iter().for_each(|(agent, _)| self.moved(*agent));
            drop(self.around.store.submit(Write::Clean { shards, settle: self.around.settle }));
        }
    }

    /// An agent's standing moves with what was submitted before.
    fn moved(&self, agent: AgentId) {
        // Nobody listens any more while the hub stops.
        let _ = self.around.news.send(News::Moved(agent));
    }

    /// Adds to an agent's history.
    fn note(&self, event: AgentEvent) {
        let agent = event.agent;
        drop(self.around.store.submit(Write::AgentEvent(Box::new(event))));
        self.moved(agent);
    }

    /// Takes an agent out. What that costs and casts doubt on is written with it; the doubts are taken up after that.
    fn quarantine(&mut self, agent: AgentId, job: JobId, code: forge_contract::FailureCode) {
        self.clean.remove(&agent);
        tracing::warn!(%agent, %job, code = %code, "agent quarantined");
        self.around.metrics.verification_failures.inc();
        let ack = self.around.store.submit(Write::Quarantine { agent, code, job });
        self.moved(agent);
        let doubts = Arc::clone(&self.around.doubts);
        self.completions.spawn(async move {
            // What could not be written is in the log; the pool keeps the agent out all the same.
            drop(ack.await);
            doubts.notify_one();
        });
    }

    /// Reads a job's accepted shards back, once everything before is durable.
    fn reload(&self, job: JobId, round: u32) {
        let (around, commands) = (self.around.clone(), self.commands.clone());
        self.completions.spawn(async move {
            let accepted = restore::accepted(&around, job).await;
            let Some(commands) = commands.upgrade() else { return };
            match accepted {
                Ok(accepted) => {
                    let event = Event::JobReopened { job, round, accepted };
                    // Whoever stopped meanwhile restores the job at its next start.
                    drop(commands.send(Command::Event(Box::new(event))).await);
                }
                Err(error) => {
                    tracing::error!(%job, %error, "a job's shards could not be read back; it goes on after a restart")
                }
            }
        });
    }

    /// A job starts.
    pub(super) fn take(&mut self, job: &Arc<LiveJob>) {
        self.tallies
            .insert(job.info.job, Tally { lines: Some(Vec::new()), shards: Some(Shards::new()), ..Tally::default() });
        self.around.metrics.jobs_accepted.inc();
    }

    /// A job of an earlier process goes on; its executions are in the store.
    pub(super) fn adopt(&mut self, restored: &restore::Restored) {
        let mut tally = Tally { attempts: restored.attempts, shards: Some(Shards::new()), ..Tally::default() };
        for accepted in restored.accepted() {
            tally.accepted(accepted, Digest::of(&accepted.fragment));
        }
        self.tallies.insert(restored.job, tally);
    }

    pub(super) fn perform(&mut self, actions: &mut Vec<Action>) {
        for action in drain(actions) {
            match action {
                Action::Dispatch { lease, agent, session, task, deadline_ms } => {
                    // A trial of a kernel is no job's.
                    let live = self.around.board.job(task.job);
                    let trace =
                        live.as_ref().map_or_else(TraceContext::default, |live| spans::of_shard(&live.info, lease));
                    let trace_id = live.as_ref().map(|live| live.info.trace_id.as_str());
                    tracing::debug!(job = %task.job, trace_id, stage = task.stage_index, shard = task.shard, %lease, %agent, "dispatch");
                    self.around.metrics.dispatches.inc();
                    self.around.fleet.dispatch(session, lease, task, deadline_ms, trace);
                }
                Action::Revoke { lease, session } => self.around.fleet.revoke(session, lease),
                Action::Publish { job, digest, bytes } => self.around.board.publish(job, digest, &bytes),
                Action::Withdraw { job, digest } => self.around.board.withdraw(job, digest),
                Action::Record(record) => self.record(record),
                Action::Progress { job, snapshot } => {
                    if let Some(live) = self.around.board.job(job) {
                        live.advance(snapshot);
                    }
                }
                Action::Reload { job, round } => self.reload(job, round),
                Action::Finish { job, outcome } => self.finish(job, *outcome),
                // Nobody takes it any more while the hub stops: the kernel stays pending and is tried again.
                Action::TrialEnded { trial, verdict } => drop(self.around.decided.send((trial, *verdict))),
            }
        }
    }

    fn record(&mut self, record: Record) {
        match record {
            Record::Accepted(accepted) => self.accepted(accepted),
            Record::Attempt(attempt) => self.attempt(&attempt),
            Record::Superseded { job, stage, shard, usage } => {
                if let Some(tally) = self.tallies.get_mut(&job) {
                    tally.superseded(stage, shard, usage);
                }
                drop(self.around.store.submit(Write::Restate {
                    job,
                    stage,
                    shard,
                    from: ending_word(Ending::Reported),
                    to: SUPERSEDED,
                }));
            }
            Record::Forgotten(forgotten) => {
                tracing::warn!(job = %forgotten.job, stage = forgotten.stage, shards = forgotten.shards.len(), "shards forgotten");
                if let Some(tally) = self.tallies.get_mut(&forgotten.job) {
                    tally.forget(&forgotten);
                }
                drop(self.around.store.submit(Write::Forget(Box::new(forgotten))));
            }
            Record::Quarantined { agent, job, code } => self.quarantine(agent, job, code),
        }
    }

    fn accepted(&mut self, mut accepted: Accepted) {
        let metrics = &self.around.metrics;
        metrics.shards.inc();
        metrics.units.inc_by(accepted.units.len() as u64);
        metrics.fuel.inc_by(accepted.fuel());
        metrics.verifications.get_or_create(&Label { kind: standing_word(accepted.verdict.standing) }).inc();
        for (kind, us) in [("wall", accepted.usage.wall_us), ("cpu", accepted.usage.cpu_us)] {
            let spent = Duration::from_micros(us).as_secs_f64();
            metrics.worker_seconds.get_or_create(&Label { kind }).inc_by(spent);
        }
        self.note_clean(&accepted);
        for agent in &accepted.verdict.refuted {
            let detail = format!("outvoted: lease {} has the accepted answer", accepted.lease);
            let place = Some((accepted.stage, accepted.shard));
            let (kind, job) = (AgentEventKind::Refuted, Some(accepted.job));
            self.note(AgentEvent { agent: *agent, kind, job, place, detail: Some(detail) });
        }
        let fragment = std::mem::take(&mut accepted.fragment);
        let digest = Digest::of(&fragment);
        if let Some(tally) = self.tallies.get_mut(&accepted.job) {
            tally.accepted(&accepted, digest);
        }
        let Some(body) = acceptance::encode(&accepted, digest) else {
            tracing::error!(job = %accepted.job, "an acceptance could not be encoded; a restart would compute it again");
            return;
        };
        self.raise(accepted.job);
        let (job, stage, shard) = (accepted.job, accepted.stage, accepted.shard);
        drop(self.around.store.submit(Write::Accepted(Box::new(AcceptedRow { job, stage, shard, body, fragment }))));
    }

    /// Sets more aside for a job that burned more than is, and ends it where its project cannot afford that.
    fn raise(&mut self, job: JobId) {
        let (Some(tally), Some(live)) = (self.tallies.get_mut(&job), self.around.board.job(job)) else { return };
        let Some(micro) = tally.meter.short_of(&live.info) else { return };
        let ack = self.around.store.submit(Write::Books(Box::new(BooksWrite::Raise { job, micro })));
        let commands = self.commands.clone();
        let raised = self.completions.spawn(async move {
            match ack.await {
                Ok(Written::Books(given)) => match *given {
                    BooksWritten::Posted(_) => return micro,
                    BooksWritten::OverBudget(over) => live.overspend(over),
                    _ => return 0,
                },
                // What could not be written is in the log, and the job is charged what it holds.
                _ => return 0,
            }
            if let Some(commands) = commands.upgrade() {
                // Whoever stopped meanwhile restores the job at its next start.
                drop(commands.send(Command::Event(Box::new(Event::CancelRequested { job }))).await);
            }
            0
        });
        tally.meter.raises.push(raised);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        let metrics = &self.around.metrics;
        metrics.attempts.get_or_create(&Label { kind: ending_word(attempt.ending) }).inc();
        metrics.placements.get_or_create(&Label { kind: reason_word(attempt.reason) }).inc();
        metrics.log_bytes.inc_by(attempt.log.len() as u64);
        let live = self.around.board.job(attempt.job);
        if let Some(live) = live.as_ref().filter(|_| self.around.telemetry.is_on()) {
            self.around.telemetry.record(spans::shard(&live.info, attempt));
        }
        if attempt.code.is_none() {
            let trace_id = live.as_ref().map(|live| live.info.trace_id.as_str());
            tracing::debug!(
                job = %attempt.job, trace_id, stage = attempt.stage, shard = attempt.shard, agent = %attempt.agent,
                lease = %attempt.lease, ending = ending_word(attempt.ending), "attempt ended"
            );
        }
        if let Some(code) = attempt.code {
            metrics.failures.get_or_create(&Label { kind: code.as_str() }).inc();
            if code.family() == forge_contract::Family::Verification {
                metrics.verification_failures.inc();
            }
            tracing::info!(
                job = %attempt.job, trace_id = live.as_ref().map(|live| live.info.trace_id.as_str()), stage = attempt.stage, shard = attempt.shard, agent = %attempt.agent, lease = %attempt.lease,
                code = %code, detail = attempt.detail.as_deref().unwrap_or_default(), "attempt failed"
            );
        }
        if let Some(code) = attempt.code.filter(|code| code.blame() == Blame::Agent) {
            let (place, job) = (Some((attempt.stage, attempt.shard)), Some(attempt.job));
            let (agent, detail) = (attempt.agent, Some(code.as_str().to_owned()));
            self.note(AgentEvent { agent, kind: AgentEventKind::Strike, job, place, detail });
        }
        if attempt.ending == Ending::Reported {
            let took = attempt.ended_at.saturating_sub(attempt.started_at);
            metrics.shard_seconds.observe(std::time::Duration::from_millis(took).as_secs_f64());
        }
        let signed = self.around.board.take_signed(attempt.lease);
        let row = row_of(attempt, live.as_ref().map(|live| &*live.info.plan), signed.as_ref());
        if let Some(tally) = self.tallies.get_mut(&attempt.job) {
            tally.attempts += 1;
            if let Some(lines) = &mut tally.lines {
                lines.push(((row.stage, row.shard, row.lease.0), row.body.clone()));
                if lines.len() > LINES_MAX {
                    tally.lines = None;
                }
            }
        }
        drop(self.around.store.submit(Write::Attempt(Box::new(row))));
    }

    fn finish(&mut self, job: JobId, outcome: JobOutcome) {
        self.write_clean();
        let tally = self.tallies.remove(&job).unwrap_or_default();
        let Some(live) = self.around.board.job(job) else {
            tracing::error!(%job, "a job ended that nobody knows");
            return;
        };
        let around = self.around.clone();
        self.completions.spawn(async move { finish::finish(&around, &live, tally, outcome).await });
    }
}
