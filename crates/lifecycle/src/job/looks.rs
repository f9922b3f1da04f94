//! Cheap looks at an answer that is committed: some of its units again, on an agent of another owner.
//!
//! A look settles nothing by itself. What it finds right lets the answer stand; what it finds wrong asks for a whole
//! copy, a verifier's where one is there, and whoever then proves to have been wrong is refuted, also who looked.

use forge_contract::report::{Outcome, Report, UnitRecord};
use forge_contract::{AgentId, Digest, Failure, FailureCode, LeaseId};

use super::answers::{blame, failure_of_agent, rate};
use super::stage::{Finding, Grant, Shard, Wish};
use super::{Effects, Job};
use crate::Millis;
use crate::action::{Asked, Attempt, Ending, Record};
use crate::dispatch::{Agents, Mark};
use crate::verify::{Look, Looked, drawn_units};

/// Looks at one shard that may fail until it stands without.
const LOOKS_FAILED_MAX: u32 = 3;

impl Job {
    /// Asks for a look at the only answer to a shard.
    pub(super) fn look_at(&mut self, now: Millis, shard: u32, look: Look) {
        let again = self.settings.audits.units_again;
        let Some(open) = self.run.open.get(&shard) else { return };
        let Some(answer) = open.answers.first() else { return };
        let about = answer.lease;
        let wishes: Vec<Wish> = match look {
            Look::Units | Look::Check => {
                let (first, count) = (open.task.first_unit, open.task.unit_count);
                let drawn = drawn_units(&answer.coins.place, first, count, again);
                drawn.into_iter().map(|unit| Wish { asked: Asked::Unit(unit), about }).collect()
            }
        };
        self.run.wish(shard, wishes);
        self.run.file(shard, now.saturating_add(self.settings.spotcheck_wait_ms));
    }

    /// Takes what a look gave.
    pub(super) fn looked(
        &mut self,
        now: Millis,
        (grant, about): (Grant, LeaseId),
        mut attempt: Attempt,
        report: Report,
        agents: &Agents,
        fx: &mut Effects<'_>,
    ) {
        let found = match &report.outcome {
            Outcome::Failed(failure) => Err(failure_of_agent(failure)),
            _ => self.seen(&grant, &report),
        };
        let record = match found {
            Ok(record) => record,
            Err(failure) => {
                attempt.code = Some(failure.code);
                attempt.detail = Some(failure.detail.clone());
                attempt.unit = failure.unit;
                fx.record(Record::Attempt(attempt));
                return self.look_failed(now, (&grant, about), &failure, agents, fx);
            }
        };
        attempt.ending = Ending::Reported;
        attempt.fuel = record.fuel;
        if let Outcome::Completed(completed) = &report.outcome {
            attempt.result = Some(completed.result_digest());
        }
        fx.record(Record::Attempt(attempt));
        let us_per_megafuel = rate(report.usage.wall_us, record.fuel);
        fx.marks.push((grant.agent, Mark::Answered { us_per_megafuel }, FailureCode::AgentDeclined));
        let (lease, agent, trust) = (report.lease, grant.agent, agents.trust(grant.agent));
        let Some(open) = self.run.open.get_mut(&grant.shard) else { return };
        // The answer it was about may have been dropped meanwhile.
        let Some(committed) = open.answer_of(about).map(|answer| answer.completed.units.clone()) else { return };
        let Asked::Unit(unit) = grant.asked else { return };
        let at = usize::try_from(unit.saturating_sub(open.task.first_unit)).unwrap_or(usize::MAX);
        let right = committed.get(at) == Some(&record);
        let looked = Looked { agent, lease, unit: Some(unit), right, error_e18: 0 };
        open.findings.push(Finding { agent, trust, about, unit: Some((unit, record)), looked });
        if !right {
            open.wishes.clear();
        }
        if !right || !open.is_looked_at() {
            self.decide(now, grant.shard, agents, fx);
        }
    }

    /// What an agent says that a unit gives.
    fn seen(&self, grant: &Grant, report: &Report) -> Result<UnitRecord, Failure> {
        let protocol = |detail: &str| Failure::new(FailureCode::AgentProtocol, detail);
        let Some(open) = self.run.open.get(&grant.shard) else { return Err(protocol("the shard is not under way")) };
        let (Outcome::Completed(completed), Asked::Unit(unit)) = (&report.outcome, grant.asked) else {
            return Err(protocol("the report is not of the kind that was asked for"));
        };
        let task = forge_contract::task::Task { first_unit: unit, unit_count: 1, ..(*open.task).clone() };
        if report.task != task.key_digest() {
            return Err(protocol("the report answers another task"));
        }
        if self.engine.is_some_and(|engine| engine != report.engine) {
            return Err(protocol("the report names another engine profile than the agent announced"));
        }
        let structure = |detail: String| Failure::new(FailureCode::VerificationStructure, detail);
        let [record] = completed.units.as_slice() else {
            return Err(structure(format!("{} unit records for one unit", completed.units.len())));
        };
        if record.digest != Digest::of(&completed.fragment) {
            return Err(structure(format!("the fragment of unit {unit} is not the one its record commits to")));
        }
        Ok(*record)
    }

    /// A look gave nothing: another agent is asked, a few times.
    pub(super) fn look_failed(
        &mut self,
        now: Millis,
        (grant, about): (&Grant, LeaseId),
        failure: &Failure,
        agents: &Agents,
        fx: &mut Effects<'_>,
    ) {
        blame(grant.agent, failure.code, fx);
        let wait = self.settings.spotcheck_wait_ms;
        let Some(open) = self.run.open.get_mut(&grant.shard) else { return };
        if open.answer_of(about).is_none() || open.doubted() {
            return;
        }
        open.avoid.insert(grant.agent);
        open.looks_failed += 1;
        if open.looks_failed < LOOKS_FAILED_MAX {
            open.wishes.push_back(Wish { asked: grant.asked, about });
            return self.run.file(grant.shard, now.saturating_add(wait));
        }
        self.give_up_looking(now, grant.shard, agents, fx);
    }

    /// Lets an answer stand without the looks that were wished for.
    pub(super) fn give_up_looking(&mut self, now: Millis, shard: u32, agents: &Agents, fx: &mut Effects<'_>) {
        let Some(open) = self.run.open.get_mut(&shard) else { return };
        open.wishes.clear();
        // Some units again are beside the audits: nothing that was promised is missing. Instead of a check there is a copy.
        (open.units_waived, open.checkable) = (true, false);
        self.run.file(shard, now);
        self.decide(now, shard, agents, fx);
    }
}

/// Who looked and is refuted by the answer that was accepted: its unit gave something else.
pub(super) fn refuted(open: &Shard, chosen: usize) -> Vec<AgentId> {
    let Some(answer) = open.answers.get(chosen) else { return Vec::new() };
    let differs = |finding: &&Finding| {
        finding.unit.is_some_and(|(unit, record)| {
            let at = usize::try_from(unit.saturating_sub(open.task.first_unit)).unwrap_or(usize::MAX);
            answer.completed.units.get(at) != Some(&record)
        })
    };
    open.findings.iter().filter(differs).map(|finding| finding.agent).collect()
}
