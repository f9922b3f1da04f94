//! Running a plan again, one shard after the other, and finding the first difference.

use forge_contract::fragment::Fragment;
use forge_contract::fragment::tree::Fold;
use forge_contract::report::{Completed, UnitRecord};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode, JobId};
use serde::{Deserialize, Serialize};

use crate::action::StageFragment;
use crate::converge::{Convergence, Watch};
use crate::plan::{Plan, PlannedInput, PlannedSource, StagePlan};
use crate::reduce;
use crate::verify::structure;

/// What a second run gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// The object `hub.output`.
    pub output: serde_json::Value,
    /// Digest of the result.
    pub result_digest: Digest,
    /// Every stage's folded fragment.
    pub stage_fragments: Vec<StageFragment>,
    /// Where and why the stage with a stop rule ended.
    pub convergence: Option<Convergence>,
    /// Every stage's unit records, in unit order.
    pub units: Vec<Vec<UnitRecord>>,
}

/// Where two runs differ first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Index of the stage.
    pub stage: u32,
    /// Index of the unit in the stage.
    pub unit: u64,
    /// What the first run says; `None` where it has no such unit.
    pub recorded: Option<UnitRecord>,
    /// What the second run found; `None` where it has no such unit.
    pub found: Option<UnitRecord>,
}

/// Runs a plan in order. `execute` runs one shard; it may read the fragments of earlier stages by digest.
///
/// Determinism: for the same plan and an honest `execute`, the result equals that of every pool.
///
/// # Errors
/// What `execute` answers, and the failures a job of the pool could have.
pub fn run(
    plan: &Plan,
    job: JobId,
    mut execute: impl FnMut(&Task, &[StageFragment]) -> Result<Completed, Failure>,
) -> Result<Replayed, Failure> {
    let (mut done, mut units): (Vec<StageFragment>, Vec<Vec<UnitRecord>>) = (Vec::new(), Vec::new());
    let mut convergence = None;
    for (index, stage) in (0u32..).zip(&plan.stages) {
        let (mut fold, mut records) = (Fold::new(stage.units), Vec::new());
        let mut watch = stage.stop.as_ref().map(|stop| Watch::new(stop, stage.units));
        let mut ended = None;
        for shard in 0..stage.shards {
            let inputs = inputs_of(stage, &done)?;
            let incomplete =
                || Failure::new(FailureCode::AggregationIncomplete, format!("the plan has no shard {shard}"));
            let task = plan.task(job, index, shard, inputs).ok_or_else(incomplete)?;
            let completed = execute(&task, &done)?;
            let fragment = structure(stage, shard, &completed)
                .map_err(|e| Failure::new(FailureCode::VerificationStructure, format!("shard {shard}: {e}")))?;
            fold.insert(task.first_unit, task.unit_count, fragment).map_err(|e| reduce::fold_failure(&e))?;
            records.extend(completed.units);
            ended = looked_at(watch.as_mut(), &fold, task.first_unit + task.unit_count, stage)?;
            if ended.is_some() {
                break;
            }
        }
        let (root, items) = match ended {
            Some((root, end)) => {
                let items = end.stopped_at.items;
                convergence = Some(end);
                (Some(root), items)
            }
            None => (fold.finish(), stage.items),
        };
        let root = root.ok_or_else(|| Failure::new(FailureCode::AggregationIncomplete, "units are missing"))?;
        reduce::whole(stage, &root, items)?;
        let bytes = root.encode();
        done.push(StageFragment { stage: stage.name.clone(), digest: Digest::of(&bytes), bytes });
        units.push(records);
    }
    Ok(Replayed {
        output: reduce::output(plan, &done)?,
        result_digest: reduce::result_digest(&done),
        stage_fragments: done,
        convergence,
        units,
    })
}

/// Looks at a stage's stop rule where `done` units are a checkpoint: what they fold to, and how the stage ended there.
fn looked_at(
    watch: Option<&mut Watch>,
    fold: &Fold,
    done: u64,
    stage: &StagePlan,
) -> Result<Option<(Fragment, Convergence)>, Failure> {
    let Some(watch) = watch.filter(|watch| watch.next() == done) else { return Ok(None) };
    let Some(prefix) = fold.prefix(done).map_err(|e| reduce::fold_failure(&e))? else { return Ok(None) };
    let end = watch.look(&prefix).and_then(|stopped| stage.convergence(stopped));
    Ok(end.map(|end| (prefix, end)))
}

/// What a stage's units read, by content, once the stages before it are done.
///
/// # Errors
/// `request.not_found` for an input that is not there.
pub fn inputs_of(stage: &StagePlan, done: &[StageFragment]) -> Result<Vec<InputRef>, Failure> {
    stage.inputs.iter().map(|input| input_ref(input, done)).collect()
}

fn input_ref(input: &PlannedInput, done: &[StageFragment]) -> Result<InputRef, Failure> {
    let found = match &input.source {
        PlannedSource::Content { digest, bytes, .. } => bytes.map(|bytes| (*digest, bytes)),
        PlannedSource::Stage { index } => {
            let fragment = usize::try_from(*index).ok().and_then(|index| done.get(index));
            fragment.map(|fragment| (fragment.digest, fragment.bytes.len() as u64))
        }
    };
    let missing = || Failure::new(FailureCode::RequestNotFound, format!("input '{}' is not there", input.name));
    found.map(|(digest, bytes)| InputRef { name: input.name.clone(), digest, bytes }).ok_or_else(missing)
}

/// The first unit in which two runs differ, in digest or fuel; stages in order, units in order.
#[must_use]
pub fn first_difference(recorded: &[Vec<UnitRecord>], found: &[Vec<UnitRecord>]) -> Option<Difference> {
    let stages = recorded.len().max(found.len());
    let none = Vec::new();
    (0..stages).find_map(|stage| {
        let (a, b) = (recorded.get(stage).unwrap_or(&none), found.get(stage).unwrap_or(&none));
        let unit = (0..a.len().max(b.len())).find(|unit| a.get(*unit) != b.get(*unit))?;
        let (recorded, found) = (a.get(unit).copied(), b.get(unit).copied());
        Some(Difference { stage: u32::try_from(stage).unwrap_or(u32::MAX), unit: unit as u64, recorded, found })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let record = |byte: u8| UnitRecord { digest: Digest::of(&[byte]), fuel: 1 };
        let base = vec![vec![record(1), record(2)], vec![record(3)]];
        assert_eq!(first_difference(&base, &base), None);
        let mut other = base.clone();
        other[1][0].fuel = 2;
        let found = first_difference(&base, &other).map(|d| (d.stage, d.unit));
        assert_eq!(found, Some((1, 0)));
        let short = vec![vec![record(1)], vec![record(3)]];
        let difference = first_difference(&base, &short);
        assert_eq!(difference.as_ref().map(|d| (d.stage, d.unit, d.found)), Some((0, 1, None)));
    }
}
