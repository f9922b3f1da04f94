//! Answers and failures of leases.

use forge_contract::envelope::VerifyMode;
use forge_contract::failure::Blame;
use forge_contract::report::{Completed, Outcome, Report, verdicts_unasked};
use forge_contract::{AgentId, Digest, Failure, FailureCode, LeaseId};

use super::stage::{Answer, Grant};
use super::{Effects, Job, looks, standing};
use crate::Millis;
use crate::action::{Accepted, Ending, Record};
use crate::dispatch::{Agents, Mark, Trust};
use crate::verify::{Askable, Circumstances, Decision, From, Look, Looked, Verdict, coins, decide, structure};

/// Failures of the kernel on one shard until they count, where only one agent can be asked.
const KERNEL_FAILURES_MAX: usize = 3;

/// Why an attempt gave nothing.
enum Broken {
    /// Every honest agent would say the same.
    Kernel,
    /// The machine's or the network's fault.
    Machine,
    /// The agent went away or declined: no fault of the shard's.
    Lost,
    /// The agent broke a rule.
    Agent,
}

impl Broken {
    fn of(code: FailureCode) -> Self {
        match (code, code.blame()) {
            (FailureCode::AgentLost | FailureCode::AgentDeclined, _) => Self::Lost,
            (_, Blame::Kernel) => Self::Kernel,
            (_, Blame::Agent) => Self::Agent,
            (_, Blame::Machine | Blame::Client | Blame::Platform) => Self::Machine,
        }
    }
}

impl Job {
    /// Takes the answer to a lease it gave.
    pub fn report(&mut self, now: Millis, report: Report, agents: &Agents, fx: &mut Effects<'_>) {
        let lease = report.lease;
        let Some((grant, about)) = self.end(lease, fx) else { return };
        let mut attempt = self.attempt(now, lease, &grant, Ending::Failed);
        attempt.usage = report.usage;
        attempt.log.clone_from(&report.log);
        if let Some(about) = about {
            self.looked(now, (grant, about), attempt, report, agents, fx);
            return self.say(now, fx);
        }
        let sound = match &report.outcome {
            Outcome::Failed(failure) => Err(failure_of_agent(failure)),
            Outcome::Completed(completed) => self.sound(&grant, &report, completed),
            Outcome::Checked(_) => Err(verdicts_unasked()),
        };
        match (sound, report.outcome) {
            (Ok(fragment), Outcome::Completed(completed)) => {
                let result = completed.result_digest();
                self.canary = false;
                attempt.ending = Ending::Reported;
                attempt.fuel = completed.fuel();
                attempt.result = Some(result);
                fx.record(Record::Attempt(attempt));
                let us_per_megafuel = rate(report.usage.wall_us, completed.fuel());
                fx.marks.push((grant.agent, Mark::Answered { us_per_megafuel }, FailureCode::AgentDeclined));
                let (agent, engine, usage) = (grant.agent, report.engine, report.usage);
                // Only now, with the answer committed, are its coins looked at.
                let coins = coins(&self.settings.hub_secret, self.id, (self.run.index, grant.shard), lease);
                let trust = agents.trust(agent);
                let odd =
                    self.wary.is_some() || self.run.shape.as_ref().is_some_and(|shape| *shape != fragment.shape());
                let answer = Answer { agent, trust, coins, lease, engine, usage, result, completed, fragment, odd };
                self.run.answer(grant.shard, answer, now.saturating_sub(grant.started_at));
                self.decide(now, grant.shard, agents, fx);
            }
            (Err(failure), _) => {
                attempt.code = Some(failure.code);
                attempt.detail = Some(failure.detail.clone());
                attempt.unit = failure.unit;
                fx.record(Record::Attempt(attempt));
                self.report.malformed += u64::from(failure.code == FailureCode::VerificationStructure);
                self.failed(now, &grant, failure, agents, fx);
            }
            (Ok(_), Outcome::Failed(_) | Outcome::Checked(_)) => {}
        }
        self.say(now, fx);
    }

    /// Checks an answer by itself.
    fn sound(
        &self,
        grant: &Grant,
        report: &Report,
        completed: &Completed,
    ) -> Result<forge_contract::fragment::Fragment, Failure> {
        let protocol = |detail: &str| Failure::new(FailureCode::AgentProtocol, detail);
        let (Some(stage), Some(open)) = (self.stage(), self.run.open.get(&grant.shard)) else {
            return Err(protocol("the shard is not under way"));
        };
        if report.task != open.key {
            return Err(protocol("the report answers another task"));
        }
        if self.engine.is_some_and(|engine| engine != report.engine) {
            return Err(protocol("the report names another engine profile than the agent announced"));
        }
        structure(stage, grant.shard, completed)
            .map_err(|e| Failure::new(FailureCode::VerificationStructure, e.to_string()))
    }

    /// Settles a shard, or asks for what is missing.
    pub(super) fn decide(&mut self, now: Millis, shard: u32, agents: &Agents, fx: &mut Effects<'_>) {
        if self.reloading {
            // Nothing is accepted while the accepted ones are being read back; the answers are still there afterwards.
            return;
        }
        let need = self.need();
        let Some(open) = self.run.open.get_mut(&shard) else { return };
        let votes = open.votes();
        let (policy, mode) = (&self.settings.audits, self.plan.verify);
        let other = |from| agents.any_trusted(&need, from, policy.proven, |_, owner| open.has_owner(owner));
        let verifier = other(From::Verifier) || open.trusts().any(|trust| trust.verifier);
        let askable = Askable { anyone: other(From::Anyone), verifier, proven: other(From::Proven) };
        let about = Circumstances {
            askable,
            units: open.task.unit_count,
            checkable: open.checkable,
            looked: open.looked(),
            doubted: open.doubted(),
        };
        let decision = match decide(policy, mode, &votes, about, self.settings.copies_max) {
            // What was asked for could not be had: equal answers stand as they are.
            Decision::More(_) if open.unchecked && !open.disputed() && !about.doubted => {
                votes.first().map_or(Decision::Unsettled, |vote| Decision::Accept(vote.result))
            }
            Decision::Look(_) if open.unchecked => {
                votes.first().map_or(Decision::Unsettled, |vote| Decision::Accept(vote.result))
            }
            // A sample at the platform's cost keeps nobody waiting, and some units again are beside the audits.
            Decision::More(_) | Decision::Look(Look::Check)
                if mode == VerifyMode::None && !open.disputed() && !about.doubted && !askable.anyone =>
            {
                votes.first().map_or(Decision::Unsettled, |vote| Decision::Accept(vote.result))
            }
            Decision::Look(Look::Units) if open.units_waived || !askable.anyone => {
                votes.first().map_or(Decision::Unsettled, |vote| Decision::Accept(vote.result))
            }
            decision => decision,
        };
        match decision {
            Decision::Accept(result) => self.settle(now, shard, result, agents, fx),
            // What was wished for is still under way.
            Decision::Look(_) if open.is_looked_at() => {}
            Decision::Look(look) => self.look_at(now, shard, look, fx),
            Decision::More(from) => {
                // A second owner that is at work already makes the second answer: what is lacking then is a verifier's.
                let enough = mode == VerifyMode::Full && from == From::Anyone && !open.disputed();
                let strangers = open.trusts().filter(|trust| !trust.verifier).count();
                let judged = open.trusts().any(|trust| trust.verifier);
                let from = if enough && strangers >= 2 && !judged { From::Verifier } else { from };
                let owners = u32::try_from(votes.len()).unwrap_or(u32::MAX);
                (open.want, open.from) = (open.want.max(owners.saturating_add(1)), from);
                let patient = open.disputed() || about.doubted || !self.is_light();
                let wait = if patient { self.settings.quorum_wait_ms } else { self.settings.spotcheck_wait_ms };
                self.run.file(shard, now.saturating_add(wait));
            }
            Decision::Unsettled => {
                let detail = match mode {
                    VerifyMode::Full => {
                        format!("shard {shard}: policy.verify \"full\" wants equal answers, they differ")
                    }
                    _ => format!("shard {shard}: {} answers gave no majority", votes.len()),
                };
                self.fail_shard(now, shard, Failure::new(FailureCode::VerificationUnsettled, detail), fx);
            }
        }
    }

    /// Whether a check that cannot be had is left out rather than waited for.
    pub(super) fn is_light(&self) -> bool {
        matches!(self.plan.verify, VerifyMode::None | VerifyMode::Spotcheck)
    }

    /// Accepts the answer with this result.
    fn settle(&mut self, now: Millis, shard: u32, result: Digest, agents: &Agents, fx: &mut Effects<'_>) {
        let Some(open) = self.run.open.get_mut(&shard) else { return };
        let others = |equal: bool, chosen: Option<AgentId>| -> Vec<AgentId> {
            let others = open.answers.iter().filter(|a| (a.result == result) == equal && Some(a.agent) != chosen);
            others.map(|a| a.agent).collect()
        };
        let chosen = open.answers.iter().position(|answer| answer.result == result);
        let Some(chosen) = chosen else { return };
        let first = open.answers.get(chosen).map(|answer| answer.agent);
        let (agreed, mut refuted) = (others(true, first), others(false, None));
        let looks: Vec<Looked> = open.findings.iter().map(|finding| finding.looked).collect();
        for agent in looks::refuted(open, chosen) {
            if !refuted.contains(&agent) {
                refuted.push(agent);
            }
        }
        // A sample was not promised to anybody. What hardly anybody looks at earns no record either.
        let sampled = self.plan.verify == VerifyMode::None;
        let unchecked = open.unchecked && !sampled;
        let earns = !agreed.is_empty() || !(unchecked || sampled);
        let clean = first.into_iter().chain(agreed.iter().copied()).filter(|_| earns);
        fx.marks.extend(clean.map(|agent| (agent, Mark::Clean, FailureCode::VerificationMismatch)));
        // Who said that the kernel fails where a verifier, or two owners, got the same answer did not tell the truth.
        let sure = !agreed.is_empty() || open.answers.get(chosen).is_some_and(|answer| answer.trust.verifier);
        let false_words = open.kernel.iter().filter(|_| sure).map(|(agent, _, _)| *agent);
        fx.marks.extend(false_words.map(|agent| (agent, Mark::Strike, FailureCode::VerificationMismatch)));
        // An answer that was accepted once and is not what two owners or a verifier give was a lie, too.
        if let Some((agent, former)) = self.former.get(&(self.run.index, shard))
            && (sure && *former != result && !refuted.contains(agent))
        {
            refuted.push(*agent);
        }
        let standing = standing(unchecked, &agreed, &looks);
        let verdict = Verdict { standing, agreed, refuted, failed: open.failed, looks };
        let answer = open.answers.swap_remove(chosen);
        let task = open.key;
        let accepted = Accepted {
            job: self.id,
            stage: self.run.index,
            shard,
            lease: answer.lease,
            agent: answer.agent,
            task,
            engine: answer.engine,
            fragment: answer.completed.fragment,
            units: answer.completed.units,
            usage: answer.usage,
            result,
            verdict,
        };
        self.accept(now, accepted, answer.fragment, agents, fx);
    }

    /// Drops the unsettled answers of an agent that was taken out: they prove nothing any more.
    pub fn disown(&mut self, now: Millis, agent: AgentId, agents: &Agents, fx: &mut Effects<'_>) {
        let held: Vec<u32> = self
            .run
            .open
            .iter()
            .filter(|(_, open)| {
                open.answers.iter().any(|a| a.agent == agent) || open.findings.iter().any(|f| f.agent == agent)
            })
            .map(|(s, _)| *s)
            .collect();
        for shard in held {
            self.run.disown(shard, agent);
            self.run.file(shard, now.saturating_add(self.settings.quorum_wait_ms));
            if self.run.open.get(&shard).is_some_and(|open| !open.answers.is_empty()) {
                self.decide(now, shard, agents, fx);
            }
            if self.over {
                return;
            }
        }
    }

    /// A lease ended without an answer.
    pub fn broken(&mut self, now: Millis, lease: LeaseId, failure: Failure, agents: &Agents, fx: &mut Effects<'_>) {
        let Some((grant, about)) = self.end(lease, fx) else { return };
        let mut attempt = self.attempt(now, lease, &grant, Ending::Failed);
        attempt.code = Some(failure.code);
        attempt.detail = Some(failure.detail.clone());
        attempt.unit = failure.unit;
        fx.record(Record::Attempt(attempt));
        match about {
            Some(about) => self.look_failed(now, (&grant, about), &failure, agents, fx),
            None => self.failed(now, &grant, failure, agents, fx),
        }
        self.say(now, fx);
    }

    /// Counts a failed attempt: the shard goes elsewhere, or the job is over.
    fn failed(&mut self, now: Millis, grant: &Grant, failure: Failure, agents: &Agents, fx: &mut Effects<'_>) {
        let need = self.need();
        let Some(open) = self.run.open.get_mut(&grant.shard) else { return };
        open.failed += 1;
        open.avoid.insert(grant.agent);
        if !agents.any_other(&need, |agent| open.avoid.contains(agent) || open.has(agent)) {
            // It failed everywhere: a new round begins, and only the last one is passed over.
            open.avoid.retain(|agent| *agent == grant.agent);
        }
        // A kernel's failure beside another agent's answer is no proof of anything: it counts as the machine's.
        let kind = match Broken::of(failure.code) {
            Broken::Kernel if !open.answers.is_empty() => Broken::Machine,
            kind => kind,
        };
        let mut hopeless = false;
        match kind {
            Broken::Kernel => {
                let Trust { owner, verifier, .. } = grant.trust;
                open.kernel.push((grant.agent, owner, failure.code));
                let alike = open.kernel.iter().filter(|(_, _, code)| *code == failure.code);
                let others = alike.clone().any(|(_, other, _)| *other != owner);
                let proven = self.settings.audits.proven;
                let alone = !agents.any_trusted(&need, From::Anyone, proven, |_, other| other == owner);
                let repeated = alike.count() >= 2 && alone;
                open.condemned = others || agents.ever() <= 1 || repeated || open.kernel.len() >= KERNEL_FAILURES_MAX;
                // Strangers could agree to break a job: where a verifier can be asked, its word is waited for.
                hopeless =
                    open.condemned && (verifier || !agents.any_verifier(&need, |agent| open.avoid.contains(agent)));
            }
            Broken::Lost => open.losses += 1,
            Broken::Machine | Broken::Agent => open.attempts += 1,
        }
        blame(grant.agent, failure.code, fx);
        if hopeless {
            return self.fail_shard(now, grant.shard, failure, fx);
        }
        let spent = open.attempts >= self.settings.attempts_max || open.losses >= self.settings.losses_max;
        let (answered, disputed) = (!open.answers.is_empty(), open.disputed());
        // All that could check failed at it or will not: nobody waits for them, and the agent earns no record by it.
        let doubted = open.doubted();
        let nobody_else = !agents.any_trusted(&need, open.from, self.settings.audits.proven, |agent, owner| {
            open.avoid.contains(agent) || open.has_owner(owner)
        });
        if (spent || nobody_else) && answered && !disputed && !doubted && self.is_light() {
            // What failed is the check alone: the answer stands, unchecked.
            if let Some(open) = self.run.open.get_mut(&grant.shard) {
                open.unchecked = true;
            }
            return self.decide(now, grant.shard, agents, fx);
        }
        let Some(open) = self.run.open.get(&grant.shard) else { return };
        if open.attempts >= self.settings.attempts_max || open.losses >= self.settings.losses_max {
            let detail = format!("shard {} failed {} times; the last time: {failure}", grant.shard, open.failed);
            let mut last = Failure::new(FailureCode::AgentAttemptsExhausted, detail);
            last.unit = failure.unit;
            return self.fail_shard(now, grant.shard, last, fx);
        }
        let wait = self.settings.quorum_wait_ms;
        self.run.file(grant.shard, now.saturating_add(wait));
    }
}

/// Notes what a failure says of the agent it happened on.
pub(super) fn blame(agent: AgentId, code: FailureCode, fx: &mut Effects<'_>) {
    match Broken::of(code) {
        Broken::Agent => fx.marks.push((agent, Mark::Strike, code)),
        Broken::Machine => fx.marks.push((agent, Mark::Failed, code)),
        Broken::Lost if code == FailureCode::AgentDeclined => fx.marks.push((agent, Mark::Failed, code)),
        Broken::Kernel | Broken::Lost => {}
    }
}

/// A failure as an agent may state it: of its own family; everything else breaks the protocol.
pub(super) fn failure_of_agent(failure: &Failure) -> Failure {
    if failure.code.family() == forge_contract::Family::Agent {
        return failure.clone();
    }
    Failure::new(
        FailureCode::AgentProtocol,
        format!("the report fails with '{}', which is not an agent's to say", failure.code),
    )
}

/// Microseconds per million fuel; 0 where too little was burned to tell.
pub(super) fn rate(wall_us: u64, fuel: u64) -> u64 {
    if fuel < 1_000_000 { 0 } else { wall_us / (fuel / 1_000_000) }
}
