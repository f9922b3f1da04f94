//! Cheap looks at an answer that is committed, by an agent of another owner: some of its units again, or the kernel's
//! own check of all of them.
//!
//! A look settles nothing by itself. What it finds right lets the answer stand; what it finds wrong asks for a whole
//! copy, a verifier's where one is there, and whoever then proves to have been wrong is refuted, also who looked.

use forge_contract::duty::{Challenge, Examination, FoundRef};
use forge_contract::failure::Blame;
use forge_contract::report::{Checked, Completed, Finding as Word, Outcome, Report, UnitRecord};
use forge_contract::{AgentId, Digest, Failure, FailureCode, LeaseId};

use super::answers::{blame, failure_of_agent, rate};
use super::stage::{Finding, Grant, Shard, Wish};
use super::{Effects, Job};
use crate::Millis;
use crate::action::{Action, Asked, Attempt, Ending, Record};
use crate::dispatch::{Agents, Mark};
use crate::verify::{Look, Looked, drawn_units};

/// Looks at one shard that may fail until it stands without.
const LOOKS_FAILED_MAX: u32 = 3;

impl Job {
    /// Asks for a look at the only answer to a shard.
    pub(super) fn look_at(&mut self, now: Millis, shard: u32, look: Look, fx: &mut Effects<'_>) {
        let again = self.settings.audits.units_again;
        let Some(open) = self.run.open.get(&shard) else { return };
        let Some(answer) = open.answers.first() else { return };
        let about = answer.lease;
        let wishes: Vec<Wish> = match look {
            Look::Units => {
                let (first, count) = (open.task.first_unit, open.task.unit_count);
                let drawn = drawn_units(&answer.coins.place, first, count, again);
                drawn.into_iter().map(|unit| Wish { asked: Asked::Unit(unit), about }).collect()
            }
            Look::Check => {
                let bytes = &answer.completed.fragment;
                let found = FoundRef { digest: Digest::of(bytes), bytes: bytes.len() as u64 };
                let challenge = Challenge(answer.coins.place);
                fx.actions.push(Action::Publish { job: self.id, digest: found.digest, bytes: bytes.as_slice().into() });
                vec![Wish { asked: Asked::Check(Examination { found, challenge }), about }]
            }
        };
        let served = wishes.iter().filter_map(|wish| match wish.asked {
            Asked::Check(examination) => Some(examination.found.digest),
            Asked::Shard | Asked::Unit(_) => None,
        });
        let served: Vec<Digest> = served.collect();
        if let Some(open) = self.run.open.get_mut(&shard) {
            served.into_iter().for_each(|digest| open.publish(digest));
        }
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
        let seen = match found {
            Ok(seen) => seen,
            Err(failure) => {
                attempt.code = Some(failure.code);
                attempt.detail = Some(failure.detail.clone());
                attempt.unit = failure.unit;
                fx.record(Record::Attempt(attempt));
                return self.look_failed(now, (&grant, about), &failure, agents, fx);
            }
        };
        attempt.ending = Ending::Reported;
        attempt.fuel = seen.fuel;
        attempt.result = Some(seen.result);
        fx.record(Record::Attempt(attempt));
        let us_per_megafuel = rate(report.usage.wall_us, seen.fuel);
        fx.marks.push((grant.agent, Mark::Answered { us_per_megafuel }, FailureCode::AgentDeclined));
        let (lease, agent, trust) = (report.lease, grant.agent, agents.trust(grant.agent));
        let Some(open) = self.run.open.get_mut(&grant.shard) else { return };
        // The answer it was about may have been dropped meanwhile.
        let Some((result, committed)) = open.answer_of(about).map(|a| (a.result, a.completed.units.clone())) else {
            return;
        };
        let first = open.task.first_unit;
        let (right, error_e18) = match (&seen.unit, &seen.checked) {
            (Some((unit, record)), _) => (record_of(&committed, first, *unit) == Some(record), 0),
            (None, Some(error)) => (true, *error),
            (None, None) => (false, 0),
        };
        let unit = seen.unit.map(|(unit, _)| unit);
        let looked = Looked { agent, lease, unit, right, error_e18, fuel: seen.fuel };
        open.findings.push(Finding { agent, trust, about, unit: seen.unit, result, looked });
        if !right {
            open.wishes.clear();
        }
        if !right || !open.is_looked_at() {
            self.decide(now, grant.shard, agents, fx);
        }
    }

    /// What a look says, once it is known to be an answer to what was asked.
    fn seen(&self, grant: &Grant, report: &Report) -> Result<Seen, Failure> {
        let protocol = |detail: &str| Failure::new(FailureCode::AgentProtocol, detail);
        let Some(open) = self.run.open.get(&grant.shard) else { return Err(protocol("the shard is not under way")) };
        if report.task != grant.asked.task(&open.task).key_digest() {
            return Err(protocol("the report answers another task"));
        }
        if self.engine.is_some_and(|engine| engine != report.engine) {
            return Err(protocol("the report names another engine profile than the agent announced"));
        }
        match (&report.outcome, grant.asked) {
            (Outcome::Completed(completed), Asked::Unit(unit)) => seen_unit(completed, unit),
            (Outcome::Checked(checked), Asked::Check(_)) => seen_check(checked, open.task.unit_count),
            _ => Err(protocol("the report is not of the kind that was asked for")),
        }
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
        if matches!(grant.asked, Asked::Check(_)) && failure.code.blame() == Blame::Kernel {
            // The check itself fails: everybody would say the same. A whole copy takes its place.
            open.looks_failed = LOOKS_FAILED_MAX;
        }
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

/// What a look says.
struct Seen {
    /// The unit that ran again and what it gave.
    unit: Option<(u64, UnitRecord)>,
    /// The chance that a wrong answer passes, in parts of 10^18, where the kernel's own check found it sound.
    checked: Option<u64>,
    fuel: u64,
    /// What the agent signed.
    result: Digest,
}

fn structural(detail: String) -> Failure {
    Failure::new(FailureCode::VerificationStructure, detail)
}

fn seen_unit(completed: &Completed, unit: u64) -> Result<Seen, Failure> {
    let [record] = completed.units.as_slice() else {
        return Err(structural(format!("{} unit records for one unit", completed.units.len())));
    };
    if record.digest != Digest::of(&completed.fragment) {
        return Err(structural(format!("the fragment of unit {unit} is not the one its record commits to")));
    }
    Ok(Seen { unit: Some((unit, *record)), checked: None, fuel: record.fuel, result: completed.result_digest() })
}

/// All units must be sound; the chance that one of them is wrong all the same is at most the sum of theirs.
fn seen_check(checked: &Checked, units: u64) -> Result<Seen, Failure> {
    if checked.units.len() as u64 != units {
        return Err(structural(format!("{} verdicts for {units} units", checked.units.len())));
    }
    let mut error = Some(0.0);
    for verdict in &checked.units {
        if !verdict.finding.is_legal() {
            return Err(structural("a probability is not one of 0 to 1".to_owned()));
        }
        error = match (&verdict.finding, error) {
            (Word::Sound { error }, Some(sum)) => Some(sum + error),
            (Word::Wrong { .. }, _) | (_, None) => None,
        };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what 64 bits hold")]
    let parts = error.map(|error: f64| (error.min(1.0) * 1e18).ceil() as u64);
    Ok(Seen { unit: None, checked: parts, fuel: checked.fuel(), result: checked.result_digest() })
}

fn record_of(units: &[UnitRecord], first: u64, unit: u64) -> Option<&UnitRecord> {
    units.get(usize::try_from(unit.checked_sub(first)?).ok()?)
}

/// Who looked and is refuted by the answer that was accepted: its unit gave something else, or it found fault with the
/// very answer. Who found a wrong answer sound by a check is not: a check has a tolerance.
pub(super) fn refuted(open: &Shard, chosen: usize) -> Vec<AgentId> {
    let Some(answer) = open.answers.get(chosen) else { return Vec::new() };
    let wrong = |finding: &&Finding| match &finding.unit {
        Some((unit, record)) => record_of(&answer.completed.units, open.task.first_unit, *unit) != Some(record),
        None => !finding.looked.right && finding.result == answer.result,
    };
    open.findings.iter().filter(wrong).map(|finding| finding.agent).collect()
}
