//! How stages and jobs end.

use forge_contract::envelope::VerifyMode;
use forge_contract::fragment::tree::Fold;
use forge_contract::{Digest, Failure, FailureCode, LeaseId};

use super::stage::StageRun;
use super::{Effects, Job, inputs};
use crate::Millis;
use crate::action::{Action, Completed, JobOutcome, Phase, Record, StageFragment, Summary};
use crate::dispatch::Agents;
use crate::plan::PlannedSource;
use crate::reduce;
use crate::verify::{ErrorBound, Screen, VerificationReport};

impl Job {
    /// Ends a stage whose shards are all in: the next one starts, or the job is complete.
    pub(super) fn end_stage(&mut self, now: Millis, agents: &Agents, fx: &mut Effects<'_>) {
        self.enter(Phase::Reducing);
        self.supersede(now, fx);
        match self.fold_stage() {
            Err(failure) => self.distrust(now, failure, agents, fx),
            Ok(()) => {
                let index = u32::try_from(self.fragments.len()).unwrap_or(u32::MAX).saturating_sub(1);
                let read_later = self
                    .plan
                    .stages
                    .iter()
                    .flat_map(|stage| &stage.inputs)
                    .any(|i| i.source == PlannedSource::Stage { index });
                if let (true, Some(done)) = (read_later, self.fragments.last()) {
                    fx.actions.push(Action::Publish {
                        job: self.id,
                        digest: done.digest,
                        bytes: done.bytes.as_slice().into(),
                    });
                }
                if self.fragments.len() == self.plan.stages.len() {
                    self.complete(now, fx);
                }
            }
        }
    }

    /// Folds the stage and enters the next one. Of a large result there is one copy from here on.
    fn fold_stage(&mut self) -> Result<(), Failure> {
        let incomplete = |detail: &str| Failure::new(FailureCode::AggregationIncomplete, detail);
        let stage = self.stage().cloned().ok_or_else(|| incomplete("no stage is under way"))?;
        let stopped = self.run.waves.as_ref().and_then(super::waves::Waves::stopped);
        let convergence = stopped.and_then(|stopped| stage.convergence(stopped));
        let root = match stopped {
            Some(stopped) => self.run.fold.prefix(stopped.unit).map_err(|e| reduce::fold_failure(&e))?,
            None => core::mem::replace(&mut self.run.fold, Fold::new(0)).finish(),
        };
        let root = root.ok_or_else(|| incomplete("units are missing in the folded result"))?;
        let items = convergence.as_ref().map_or(stage.items, |convergence| convergence.stopped_at.items);
        self.convergence = convergence.or(self.convergence.take());
        reduce::whole(&stage, &root, items)?;
        let bytes = root.encode();
        drop(root);
        self.fragments.push(StageFragment { stage: stage.name.clone(), digest: Digest::of(&bytes), bytes });
        if let Some(next) = self.plan.stages.get(self.fragments.len()) {
            let index = u32::try_from(self.fragments.len()).unwrap_or(u32::MAX);
            self.report.outliers.extend(self.screen.outliers(index.saturating_sub(1)));
            self.screen = Screen::default();
            self.run = StageRun::new(index, next, inputs(next, &self.fragments)?);
            self.phase = Phase::Running;
        }
        Ok(())
    }

    /// Takes back what is out beyond the end of a stage that ended early, and forgets what came from there.
    fn supersede(&mut self, now: Millis, fx: &mut Effects<'_>) {
        let Some(waves) = &mut self.run.waves else { return };
        let (stage, shard, usage) = (self.run.index, waves.until(), waves.drop_held());
        let early = self.stage().is_some_and(|stage| shard < stage.shards);
        let live: Vec<LeaseId> = self.run.grants.keys().copied().collect();
        for lease in live {
            self.revoke(now, lease, fx);
        }
        if early {
            self.backing.supersede(stage, shard);
            fx.record(Record::Superseded { job: self.id, stage, shard, usage });
        }
    }

    fn complete(&mut self, now: Millis, fx: &mut Effects<'_>) {
        match reduce::output(&self.plan, &self.fragments) {
            Err(failure) => self.fail(now, failure, fx),
            Ok(output) => {
                let completed = Completed {
                    output,
                    result_digest: reduce::result_digest(&self.fragments),
                    stage_fragments: core::mem::take(&mut self.fragments),
                    convergence: self.convergence.take().map(Box::new),
                    summary: self.summary(),
                };
                self.finish(now, Phase::Completed, JobOutcome::Completed(completed), fx);
            }
        }
    }

    /// Ends it with a failure.
    pub fn fail(&mut self, now: Millis, failure: Failure, fx: &mut Effects<'_>) {
        let summary = self.summary();
        self.finish(now, Phase::Failed, JobOutcome::Failed { failure, summary }, fx);
    }

    /// Ends it at the client's wish.
    pub fn cancel(&mut self, now: Millis, fx: &mut Effects<'_>) {
        let summary = self.summary();
        self.finish(now, Phase::Cancelled, JobOutcome::Cancelled { summary }, fx);
    }

    fn finish(&mut self, now: Millis, phase: Phase, outcome: JobOutcome, fx: &mut Effects<'_>) {
        if self.over {
            return;
        }
        let live: Vec<LeaseId> = self.run.grants.keys().copied().collect();
        for lease in live {
            self.revoke(now, lease, fx);
        }
        self.phase = phase;
        self.over = true;
        fx.actions.push(Action::Progress { job: self.id, snapshot: self.snapshot() });
        fx.actions.push(Action::Finish { job: self.id, outcome: Box::new(outcome) });
    }

    fn summary(&self) -> Summary {
        Summary {
            work: self.work,
            agents_used: self.used.len() as u64,
            shards: self.shards_done,
            shards_total: self.plan.shards_total(),
            verification: self.verification(),
            warnings: self.warnings(),
        }
    }

    /// The verification report as it stands now.
    fn verification(&self) -> VerificationReport {
        let mut report = self.report.clone();
        // Of a stage that is over they are in already; its screen is still there only where it was the last one.
        report.outliers.extend(self.screen.outliers(self.run.index));
        let bound = ErrorBound::of(&self.settings.audits, self.alone);
        report.bound = (self.plan.verify != VerifyMode::None).then_some(bound);
        report
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let wished = self.plan.parallel.min_agents;
        if self.agents_peak < wished {
            warnings.push(format!(
                "policy.min_agents asks for {wished} agents; at most {} were connected",
                self.agents_peak
            ));
        }
        let odd = self.screen.outliers(self.run.index).len() + self.report.outliers.len();
        if odd > 0 {
            warnings.push(format!(
                "the mean of {odd} shards lies far from that of the others (verification.outliers); their bits were \
                 checked like all others"
            ));
        }
        let unchecked = self.report.unchecked;
        if unchecked > 0 {
            warnings.push(format!("{unchecked} checks were not possible: no agent of another owner was connected"));
        }
        warnings
    }
}
