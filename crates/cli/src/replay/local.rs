//! A job again on this machine, from its bundle alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use forge_contract::failure::Blame;
use forge_contract::report::{Completed, UnitRecord};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Digest, Failure, FailureCode};
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::bundle::audit::{Found, audit};
use forge_lifecycle::bundle::leaf::{COMPONENT, INPUT_PREFIX, Recorded};
use forge_lifecycle::bundle::{self, Bundle};
use forge_lifecycle::plan::StagePlan;
use forge_lifecycle::replay::{self, Difference, Replayed};
use forge_sandbox::{Inputs, engine_profile};
use serde_json::{Value, json};

use super::Args;
use super::bench::{Answers, Bench, Counter};
use crate::exit::Outcome;
use crate::{number, screen, verify};

/// Stops a replay at its first difference; never seen by anybody.
const STOPPED: &str = "stopped at the first difference";

/// What a replay found.
#[derive(Debug, Default)]
struct Report {
    units: u64,
    units_total: u64,
    first: Option<Difference>,
    /// The kernel failed where the record has an answer.
    failed: Option<(u32, Failure)>,
    /// Every unit is as recorded, and what is made of them is not.
    folded: Option<String>,
    result: Option<Digest>,
    wall_ms: u128,
}

impl Report {
    fn is_equal(&self) -> bool {
        self.first.is_none() && self.failed.is_none() && self.folded.is_none()
    }
}

/// What a bundle says, owned, so that threads can hold it.
struct Case {
    recorded: Recorded,
    inputs: BTreeMap<Digest, Vec<u8>>,
    units: BTreeMap<(u32, u64), UnitRecord>,
}

/// Repeats what the bundle records.
///
/// # Errors
/// The bundle cannot be read, or holds too little to repeat it.
pub async fn run(args: &Args, path: &Path) -> Result<Outcome> {
    let bytes = verify::read(path)?;
    let read = bundle::decode(&bytes).with_context(|| format!("{} is not a sound bundle", path.display()))?;
    let recorded = Recorded::read(&read).with_context(|| format!("{} cannot be replayed", path.display()))?;
    remarks(args, &read, &recorded);
    let component = component(args, &read, &recorded)?;
    let case = Arc::new(Case { units: by_unit(&recorded), inputs: inputs(&read), recorded });
    let wanted = wanted(args, &case)?;
    let width = args.cores.map_or_else(cores, |cores| usize::from(cores.get()));
    let bench = match args.backend.in_process() {
        None => Bench::caged(&component, args.cage.into(), width).await?,
        Some(backend) => Bench::local(&component, backend, width)?,
    };
    let began = Instant::now();
    let (quiet, shared) = (args.quiet, Arc::clone(&case));
    // A thread that may block: the comparison waits for answers in order.
    let replayed = tokio::task::spawn_blocking(move || match wanted {
        Some((stage, units)) => some(&shared, &bench, stage, units, quiet),
        None => whole(&shared, &bench, quiet),
    });
    let mut report = replayed.await.context("the replay broke off")??;
    report.wall_ms = began.elapsed().as_millis();
    report.units_total = case.units.len() as u64;
    screen::print(&match args.json {
        true => screen::json(&as_json(&case, &report)),
        false => as_text(&case, &report),
    })?;
    Ok(if report.is_equal() { Outcome::Done } else { Outcome::Differs })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What does not keep from replaying, and should be known.
fn remarks(args: &Args, read: &Bundle<'_>, recorded: &Recorded) {
    for check in audit(read, None, &verify::is_signed) {
        if check.result == Found::Failed {
            screen::remark(&format!("remark: {} does not hold: {}\n", check.name, check.detail));
        }
    }
    let here = engine_profile();
    for engine in recorded.outcome.engines.iter().filter(|engine| **engine != here) {
        screen::remark(&format!(
            "remark: recorded under engine profile {}, this program has {}: bits or fuel may differ for that alone\n",
            engine.short(),
            here.short()
        ));
    }
    if args.backend.in_process().is_some() {
        screen::remark("remark: this backend runs the component in this process, without a cage\n");
    }
}

/// The component: from the bundle, or from a file of the same digest.
fn component(args: &Args, read: &Bundle<'_>, recorded: &Recorded) -> Result<Vec<u8>> {
    let pinned = recorded.plan.component;
    let (bytes, origin) = match &args.component {
        Some(path) => (verify::read(path)?, path.display().to_string()),
        None => match read.content(COMPONENT) {
            Some(content) => (content.to_vec(), format!("leaf '{COMPONENT}'")),
            None => bail!(
                "the bundle is slim and holds no component: give it with --component FILE (digest {pinned}), or fetch \
                 the bundle without --slim"
            ),
        },
    };
    let found = Digest::of(&bytes);
    if found != pinned {
        bail!("{origin} has the digest {found}, the plan pins the component {pinned}; give that one with --component");
    }
    Ok(bytes)
}

/// Stored content that is in the bundle and has its digest.
fn inputs(read: &Bundle<'_>) -> BTreeMap<Digest, Vec<u8>> {
    let inputs = read.leaves().filter(|(entry, _)| entry.name.starts_with(INPUT_PREFIX));
    inputs
        .filter_map(|(entry, content)| content.map(|content| (entry.digest, content.to_vec())))
        .filter(|(digest, content)| Digest::of(content) == *digest)
        .collect()
}

fn by_unit(recorded: &Recorded) -> BTreeMap<(u32, u64), UnitRecord> {
    let units = recorded.shards.iter().flat_map(|shard| {
        let places = (shard.first_unit..).map(move |unit| (shard.stage, unit));
        places.zip(shard.units.iter().copied())
    });
    units.collect()
}

/// The stage and units asked for; for a job without a result all that were accepted. `None` is the whole job.
fn wanted(args: &Args, case: &Case) -> Result<Option<(u32, Vec<u64>)>> {
    let stages = &case.recorded.plan.stages;
    let Some(wanted) = &args.units else {
        if case.recorded.outcome.result.is_some() {
            return Ok(None);
        }
        let Some((stage, _)) = case.units.keys().next().copied() else {
            bail!(
                "the job is {} and no unit of it was accepted: there is nothing to repeat",
                case.recorded.outcome.status
            )
        };
        return Ok(Some((stage, recorded_units(case, stage))));
    };
    let name = args.stage.as_deref();
    let found = (0u32..).zip(stages).find(|(_, stage)| name.is_none_or(|name| stage.name == name));
    let (index, stage) = found.ok_or_else(|| {
        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        anyhow!("there is no stage '{}'; there are: {}", name.unwrap_or_default(), names.join(", "))
    })?;
    let no_unit = |unit: u64| {
        anyhow!(
            "stage '{}' has no unit {unit}: it has {} units, 0 to {}",
            stage.name,
            stage.units,
            stage.units.max(1) - 1
        )
    };
    let units = wanted.of(stage.units).map_err(no_unit)?;
    if let Some(unit) = units.iter().find(|unit| !case.units.contains_key(&(index, **unit))) {
        bail!("unit {unit} of stage '{}' was never accepted: the bundle records nothing to compare with", stage.name);
    }
    Ok(Some((index, units)))
}

fn recorded_units(case: &Case, stage: u32) -> Vec<u64> {
    case.units.range((stage, 0)..=(stage, u64::MAX)).map(|((_, unit), _)| *unit).collect()
}

/// What a stage's tasks read, by content.
fn held(case: &Case, declared: &[InputRef], done: &[StageFragment]) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::none();
    for reference in declared {
        let fragment = done.iter().find(|fragment| fragment.digest == reference.digest);
        let found = fragment.map(|fragment| &fragment.bytes).or_else(|| case.inputs.get(&reference.digest));
        let bytes = found.ok_or_else(|| {
            let detail = format!(
                "the input '{}' ({}) is not in the bundle; fetch the bundle without --slim",
                reference.name, reference.digest
            );
            Failure::new(FailureCode::RequestNotFound, detail)
        })?;
        inputs.add(reference, bytes.clone().into());
    }
    Ok(inputs)
}

/// Where an answer differs from the record first.
fn compare(case: &Case, task: &Task, completed: &Completed) -> Option<Difference> {
    (task.first_unit..).zip(&completed.units).find_map(|(unit, found)| {
        let recorded = case.units.get(&(task.stage_index, unit)).copied();
        let same = recorded.as_ref() == Some(found);
        (!same).then_some(Difference { stage: task.stage_index, unit, recorded, found: Some(*found) })
    })
}

/// Runs single units of one stage.
fn some(case: &Case, bench: &Bench, index: u32, units: Vec<u64>, quiet: bool) -> Result<Report> {
    let recorded = &case.recorded;
    let stage = usize::try_from(index).ok().and_then(|at| recorded.plan.stages.get(at));
    let stage = stage.ok_or_else(|| anyhow!("the plan has no stage {index}"))?;
    let failed = |failure: Failure| anyhow!("{}", failure.detail);
    let declared = replay::inputs_of(stage, &recorded.fragments).map_err(failed)?;
    let inputs = held(case, &declared, &recorded.fragments).map_err(failed)?;
    let tasks: Vec<Task> = units.iter().filter_map(|unit| single(case, stage, index, *unit, &declared)).collect();
    let counter = Counter::new(quiet, units.len() as u64);
    let mut answers = bench.run(tasks.clone(), &inputs, &counter);
    let mut report = Report::default();
    for (place, task) in tasks.iter().enumerate() {
        match answers.wait(place) {
            Ok(completed) => {
                report.units += 1;
                report.first = compare(case, task, &completed);
            }
            Err(failure) => report.failed = Some((index, of_kernel(failure)?)),
        }
        if !report.is_equal() {
            break;
        }
    }
    Ok(report)
}

/// The task of one unit alone.
fn single(case: &Case, stage: &StagePlan, index: u32, unit: u64, inputs: &[InputRef]) -> Option<Task> {
    let shard = u32::try_from(unit / stage.shard_units.max(1)).ok()?;
    let task = case.recorded.plan.task(job(), index, shard, inputs.to_vec())?;
    Some(Task { first_unit: unit, unit_count: 1, ..task })
}

/// A job id for tasks of this machine: it is no part of the computation.
fn job() -> forge_contract::JobId {
    forge_contract::JobId::from_bits(0)
}

/// A failure that the kernel answers for; any other keeps from comparing at all.
fn of_kernel(failure: Failure) -> Result<Failure> {
    if failure.code.blame() == Blame::Kernel {
        return Ok(failure);
    }
    bail!("{} ({})", failure.detail, failure.code)
}

/// Runs the whole plan, shard by shard as recorded, and compares as answers come.
fn whole(case: &Arc<Case>, bench: &Bench, quiet: bool) -> Result<Report> {
    let counter = Counter::new(quiet, case.units.len() as u64);
    let mut course = Course { case, bench, counter, stage: None, report: Report::default() };
    let replayed = replay::run(&case.recorded.plan, job(), |task, done| course.answer(task, done));
    let mut report = course.report;
    match replayed {
        Ok(replayed) => conclude(case, &replayed, &mut report),
        Err(_) if !report.is_equal() => {}
        Err(failure) => bail!("{} ({})", failure.detail, failure.code),
    }
    Ok(report)
}

/// A whole replay under way.
struct Course<'a> {
    case: &'a Case,
    bench: &'a Bench,
    counter: Arc<Counter>,
    stage: Option<(u32, Vec<u32>, Answers)>,
    report: Report,
}

impl Course<'_> {
    fn answer(&mut self, task: &Task, done: &[StageFragment]) -> Result<Completed, Failure> {
        if self.stage.as_ref().is_none_or(|(index, ..)| *index != task.stage_index) {
            self.begin(task, done)?;
        }
        let missing = || {
            let detail = format!(
                "stage {}: the plan has a shard {} that the bundle does not record; `forgepool verify` says what is wrong",
                task.stage_index, task.shard
            );
            Failure::new(FailureCode::AggregationIncomplete, detail)
        };
        let (_, shards, answers) = self.stage.as_mut().ok_or_else(missing)?;
        if shards.last().is_some_and(|last| *last < task.shard) {
            let (stage, unit) = (stage_name(self.case, task.stage_index), task.first_unit);
            self.report.folded = Some(format!("stage '{stage}' goes on at unit {unit}, where its end is recorded"));
        }
        let place = shards.binary_search(&task.shard).map_err(|_| missing())?;
        let completed = match answers.wait(place) {
            Ok(completed) => completed,
            Err(failure) => {
                if failure.code.blame() == Blame::Kernel {
                    self.report.failed = Some((task.stage_index, failure.clone()));
                }
                return Err(failure);
            }
        };
        self.report.units += completed.units.len() as u64;
        self.report.first = compare(self.case, task, &completed);
        match self.report.first {
            None => Ok(completed),
            Some(_) => Err(Failure::new(FailureCode::VerificationMismatch, STOPPED)),
        }
    }

    /// Starts every recorded shard of a stage.
    fn begin(&mut self, task: &Task, done: &[StageFragment]) -> Result<(), Failure> {
        let index = task.stage_index;
        let recorded = &self.case.recorded;
        let shards: Vec<u32> =
            recorded.shards.iter().filter(|shard| shard.stage == index).map(|shard| shard.shard).collect();
        let tasks = shards.iter().filter_map(|shard| recorded.plan.task(job(), index, *shard, task.inputs.clone()));
        let inputs = held(self.case, &task.inputs, done)?;
        // Only one stage's workers at a time.
        self.stage = None;
        self.stage = Some((index, shards.clone(), self.bench.run(tasks.collect(), &inputs, &self.counter)));
        Ok(())
    }
}

/// Every unit is as recorded; so must be what is made of them.
fn conclude(case: &Case, replayed: &Replayed, report: &mut Report) {
    let recorded = &case.recorded;
    report.result = Some(replayed.result_digest);
    let stages = recorded.fragments.iter().zip(&replayed.stage_fragments);
    report.folded = stages.into_iter().find(|(old, new)| old.digest != new.digest).map(|(old, new)| {
        format!(
            "the fragment of stage '{}' is recorded as {} and its units fold to {}",
            old.stage, old.digest, new.digest
        )
    });
    if report.folded.is_none() && recorded.outcome.result != Some(replayed.result_digest) {
        report.folded = Some(format!("the result's digest is not {}", replayed.result_digest));
    }
    if report.folded.is_none() && recorded.output.as_ref() != Some(&replayed.output) {
        report.folded = Some("the output is recorded otherwise than its fragments reduce to".into());
    }
}

fn stage_name(case: &Case, index: u32) -> &str {
    let stage = usize::try_from(index).ok().and_then(|at| case.recorded.plan.stages.get(at));
    stage.map_or("", |stage| &stage.name)
}

fn as_json(case: &Case, report: &Report) -> Value {
    let difference = report.first.as_ref().map(|first| {
        json!({
            "stage": first.stage, "stage_name": stage_name(case, first.stage), "unit": first.unit,
            "recorded": first.recorded, "found": first.found,
        })
    });
    let failed = report.failed.as_ref().map(|(stage, failure)| {
        json!({"stage": stage, "unit": failure.unit, "code": failure.code.as_str(), "detail": failure.detail})
    });
    json!({
        "verdict": if report.is_equal() { "equal" } else { "different" },
        "op": case.recorded.plan.op, "component": case.recorded.plan.component.to_string(),
        "units": report.units, "units_recorded": report.units_total, "wall_ms": u64::try_from(report.wall_ms).ok(),
        "first_difference": difference, "failed": failed, "folded": report.folded,
        "result_digest": report.result.map(|digest| digest.to_string()),
    })
}

fn as_text(case: &Case, report: &Report) -> String {
    let plan = &case.recorded.plan;
    let mut text = format!(
        "{} {} · component {} · {} of {} units re-executed in {} ms\n",
        plan.op,
        plan.profile,
        plan.component.short(),
        number::count(report.units),
        number::count(report.units_total),
        report.wall_ms
    );
    let said = |unit: &Option<UnitRecord>| {
        unit.as_ref().map_or_else(|| "nothing".to_owned(), |unit| format!("{}, {} fuel", unit.digest, unit.fuel))
    };
    if let Some(Difference { stage, unit, recorded, found }) = &report.first {
        text.push_str(&format!(
            "DIFFERENT: stage '{}', unit {unit} is the first\n  recorded  {}\n  found     {}\n",
            stage_name(case, *stage),
            said(recorded),
            said(found)
        ));
    } else if let Some((stage, failure)) = &report.failed {
        let unit = failure.unit.map_or_else(String::new, |unit| format!(", unit {unit}"));
        text.push_str(&format!(
            "DIFFERENT: stage '{}'{unit} fails here, {} ({}), and is recorded with an answer\n",
            stage_name(case, *stage),
            failure.detail,
            failure.code
        ));
    } else if let Some(folded) = &report.folded {
        text.push_str(&format!("DIFFERENT: every unit is as recorded, but {folded}\n"));
    } else if let Some(result) = &report.result {
        text.push_str(&format!("EQUAL: every unit gave the recorded bits and fuel; result digest {result}\n"));
    } else {
        text.push_str("EQUAL: these units gave the recorded bits and fuel\n");
    }
    text
}
