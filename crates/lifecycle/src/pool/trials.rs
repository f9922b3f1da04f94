//! Trials in the pool: ordinary leases, given to verifiers alone, before any job's.

use std::sync::Arc;

use forge_contract::envelope::Target;
use forge_contract::failure::Blame;
use forge_contract::report::Report;
use forge_contract::{AgentId, Failure, LeaseId};

use super::{Owner, Pool};
use crate::Millis;
use crate::action::Action;
use crate::dispatch::{Mark, Need};
use crate::member::SessionId;
use crate::trial::{Exam, Grounds, Most, Step, Trial, TrialId};

impl Pool {
    /// Kernels on trial.
    #[must_use]
    pub fn trials(&self) -> usize {
        self.trials.len()
    }

    pub(super) fn begin_trial(
        &mut self,
        id: TrialId,
        (exams, grounds): (Vec<Exam>, Grounds),
        actions: &mut Vec<Action>,
    ) {
        if self.trials.contains_key(&id) {
            return;
        }
        let trial = Trial::new(exams, grounds);
        match trial.ended() {
            Some(verdict) => actions.push(Action::TrialEnded { trial: id, verdict: Box::new(verdict) }),
            None => drop(self.trials.insert(id, trial)),
        }
    }

    /// Gives each trial that waits a lease, as far as verifiers are free.
    pub(super) fn dispatch_trials(&mut self, now: Millis, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        let waiting = self.trials.iter().filter(|(_, trial)| trial.waiting().is_some());
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.agents.none_free() {
                return;
            }
            if let Some((agent, session)) = self.verifier_for(id) {
                self.examine(now, id, agent, session, actions);
            }
        }
    }

    /// A free verifier for the next unit of a trial: the last one, which has the code; else the best.
    fn verifier_for(&mut self, id: TrialId) -> Option<(AgentId, SessionId)> {
        let trial = self.trials.get_mut(&id)?;
        let need = need(trial.waiting()?, trial.grounds());
        if !self.agents.any_verifier(&need, |agent| trial.avoids(agent)) {
            trial.forgive();
        }
        let agents = &self.agents;
        let last = trial.last().and_then(|agent| agents.placement(agent));
        let fit = |(_, session)| {
            let agent = agents.agent(session)?;
            let takes = agent.verifier && !trial.avoids(&agent.id) && agents.suits(agent, &need);
            // Behind what it holds of jobs: they keep every core busy for as long as there are shards.
            (takes && agents.has_room(agent, &need, true)).then_some((agent.id, session))
        };
        last.into_iter().chain(agents.free()).find_map(fit)
    }

    fn examine(&mut self, now: Millis, id: TrialId, agent: AgentId, session: SessionId, actions: &mut Vec<Action>) {
        let lease = self.number();
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let Some(exam) = trial.waiting() else { return };
        let task = Arc::clone(&exam.task);
        let work_ms = exam.expected.fuel / self.settings.fuel_per_ms_assumed.max(1);
        let deadline_ms = work_ms
            .saturating_mul(self.settings.lease_slack)
            .saturating_add(self.settings.lease_ms_min)
            .saturating_add(self.settings.trial_compile_ms);
        trial.given(lease, agent);
        self.hold(now, lease, session, Owner::Trial(id), deadline_ms);
        actions.push(Action::Dispatch { lease, agent, session, task, deadline_ms });
    }

    pub(super) fn report_trial(&mut self, now: Millis, id: TrialId, report: Report, actions: &mut Vec<Action>) {
        let (lease, most) = (report.lease, self.most());
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let step = trial.report(report, most);
        self.settle_trial(now, id, lease, step, actions);
    }

    pub(super) fn break_trial(
        &mut self,
        now: Millis,
        id: TrialId,
        lease: LeaseId,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let most = self.most();
        let Some(trial) = self.trials.get_mut(&id) else { return };
        let step = trial.broken(failure, most);
        self.settle_trial(now, id, lease, step, actions);
    }

    pub(super) fn withdraw_trial(&mut self, id: TrialId, lease: LeaseId, actions: &mut Vec<Action>) {
        if let Some(held) = self.leases.get(&lease) {
            actions.push(Action::Revoke { lease, session: held.session });
        }
        if let Some(trial) = self.trials.get_mut(&id) {
            trial.withdrawn();
        }
        self.let_go(lease);
    }

    fn most(&self) -> Most {
        Most { failures: self.settings.attempts_max, losses: self.settings.losses_max }
    }

    /// Ends a lease of a trial, and with its last one the trial.
    fn settle_trial(&mut self, now: Millis, id: TrialId, lease: LeaseId, step: Step, actions: &mut Vec<Action>) {
        let session = self.leases.get(&lease).map(|held| held.session);
        let agent = session.and_then(|session| self.agents.agent(session)).map(|agent| agent.id);
        self.let_go(lease);
        match step {
            Step::Next => {}
            Step::Again(code) => {
                // Somebody else is asked first; who failed rests, so that nothing turns in a circle.
                let mark = if code.blame() == Blame::Agent { Mark::Strike } else { Mark::Failed };
                if let Some(agent) = agent
                    && self.agents.mark(now, agent, mark)
                {
                    self.quarantine(now, agent, id.job(), code, actions);
                }
            }
            Step::Ended(verdict) => {
                self.trials.remove(&id);
                actions.push(Action::TrialEnded { trial: id, verdict: Box::new(verdict) });
            }
        }
    }
}

fn need(exam: &Exam, grounds: &Grounds) -> Need {
    Need {
        target: Target::Any,
        memory_bytes: exam.task.limits.memory_bytes,
        engine: None,
        requires: grounds.requires.clone(),
        project: grounds.project,
    }
}
