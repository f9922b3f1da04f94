//! What to run where there is no known answer: from the choice on the command line, the schema's examples, or defaults.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use forge_contract::manifest::{Profile, Split};
use forge_contract::task::{InputRef, Task};
use forge_contract::{Failure, JobId};
use forge_lifecycle::action::StageFragment;
use forge_lifecycle::plan::{Kernel, Plan};
use forge_lifecycle::replay;
use serde_json::{Map, Value};

use super::findings::Findings;
use super::trial::{Engines, Trial, explained, plan, task};

/// Most units of a job that is run whole so that a later stage has something to read.
const WHOLE_UNITS_MAX: u64 = 64;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What to run")]
pub struct Choice {
    /// Only this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Arguments as JSON [default: the schema's `examples`, else its defaults]
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// Root seed
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// A unit's index; may be given again [default: each stage's first and last]
    #[arg(long, value_name = "N")]
    unit: Vec<u64>,
}

impl Choice {
    /// Whether a profile is not to be looked at.
    pub fn skips(&self, profile: &str) -> bool {
        self.profile.as_deref().is_some_and(|chosen| chosen != profile)
    }

    /// Whether something particular is asked for.
    pub fn is_given(&self) -> bool {
        self.args.is_some() || self.seed.is_some() || !self.unit.is_empty()
    }
}

/// The units of a profile to try.
///
/// # Errors
/// The arguments given are no JSON or fit no plan.
pub fn trials(
    kernel: &Kernel,
    name: &str,
    choice: &Choice,
    engines: &Engines,
    findings: &mut Findings,
) -> Result<Vec<Trial>> {
    let Some(profile) = kernel.manifest.profiles.get(name) else { return Ok(Vec::new()) };
    let given = match &choice.args {
        Some(text) => {
            let value: Value = serde_json::from_str(text).with_context(|| format!("--args: {text}"))?;
            if !value.is_object() {
                bail!("--args: expected a JSON object, found {value}");
            }
            vec![value]
        }
        None => examples(profile),
    };
    let seed = choice.seed.clone().unwrap_or_else(|| "check".into());
    let mut trials = Vec::new();
    for args in given {
        match plan(kernel, name, &args, &seed) {
            Ok(plan) => trials.extend(of_plan(&plan, choice, &Wanted { args, seed: seed.clone() }, engines, findings)),
            Err(failure) if choice.args.is_some() => bail!("{name}: {}", failure.detail),
            Err(failure) => findings.warnings.push(format!(
                "{name} was not tried: {}; give `examples = [{{ ... }}]` in its args, or --args",
                failure.detail
            )),
        }
    }
    Ok(trials)
}

struct Wanted {
    args: Value,
    seed: String,
}

impl Wanted {
    fn trial(&self, task: Task, unit: u64, reads: Vec<(InputRef, Bytes)>) -> Trial {
        Trial {
            profile: task.profile.clone(),
            stage: task.stage.clone(),
            args: self.args.clone(),
            seed: self.seed.clone(),
            unit,
            task,
            reads,
            known: None,
        }
    }
}

fn of_plan(plan: &Plan, choice: &Choice, wanted: &Wanted, engines: &Engines, findings: &mut Findings) -> Vec<Trial> {
    if plan.stages.iter().any(|stage| !stage.inputs.is_empty()) {
        return whole(plan, wanted, engines, findings);
    }
    let mut trials = Vec::new();
    for stage in &plan.stages {
        let mut units = if choice.unit.is_empty() { vec![0, stage.units - 1] } else { choice.unit.clone() };
        units.dedup();
        for unit in units {
            match task(plan, &stage.name, unit, Vec::new()) {
                Some(task) => trials.push(wanted.trial(task, unit, Vec::new())),
                None => findings
                    .warnings
                    .push(format!("stage '{}' has no unit {unit}: these arguments give {}", stage.name, stage.units)),
            }
        }
    }
    trials
}

/// The first and last shard of every stage, with what earlier stages gave them to read.
fn whole(plan: &Plan, wanted: &Wanted, engines: &Engines, findings: &mut Findings) -> Vec<Trial> {
    let mut not_tried = |why: String| findings.warnings.push(format!("{} was not tried: {why}", plan.profile));
    if plan.units_total() > WHOLE_UNITS_MAX {
        not_tried(format!(
            "its stages read each other, and {} units are more than the {WHOLE_UNITS_MAX} run here; give smaller `examples`",
            plan.units_total()
        ));
        return Vec::new();
    }
    let mut seen: Vec<Trial> = Vec::new();
    let ran = replay::run(plan, JobId::from_bits(1), |task, done| {
        let reads = reads(task, done);
        let trial = wanted.trial(task.clone(), task.first_unit, reads);
        let result = engines.run_shard(task, &trial.inputs());
        seen.push(trial);
        result.outcome.completed()
    });
    if let Err(failure) = ran {
        if seen.is_empty() {
            not_tried(unready(&failure));
        } else {
            findings.errors.push(format!("{}: {}", plan.profile, explained(&failure)));
        }
    }
    let stages: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    let ends = stages.iter().flat_map(|stage| {
        let first = seen.iter().position(|trial| trial.stage == *stage);
        let last = seen.iter().rposition(|trial| trial.stage == *stage).filter(|last| Some(*last) != first);
        first.into_iter().chain(last)
    });
    ends.filter_map(|index| seen.get(index).cloned()).collect()
}

fn unready(failure: &Failure) -> String {
    format!("{}; record a known answer with its inputs in goldens.json", failure.detail)
}

fn reads(task: &Task, done: &[StageFragment]) -> Vec<(InputRef, Bytes)> {
    let found = |reference: &InputRef| {
        let fragment = done.iter().find(|fragment| fragment.digest == reference.digest)?;
        Some((reference.clone(), Bytes::from(fragment.bytes.clone())))
    };
    task.inputs.iter().filter_map(found).collect()
}

/// Arguments to try a profile with: the schema's examples, else the least that it takes, with full units of work.
fn examples(profile: &Profile) -> Vec<Value> {
    let stated = profile.args.get("examples").and_then(Value::as_array).cloned().unwrap_or_default();
    if !stated.is_empty() {
        return stated;
    }
    let required = profile.args.get("required").and_then(Value::as_array);
    let mut args = Map::new();
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        let schema = profile.args.pointer(&format!("/properties/{name}")).cloned().unwrap_or_default();
        if schema.get("default").is_none() {
            args.insert(name.to_owned(), example(&schema, full_unit(profile, name)));
        }
    }
    vec![Value::Object(args)]
}

/// Items of a full unit of the stages that an argument cuts.
fn full_unit(profile: &Profile, argument: &str) -> Option<u64> {
    let of = |split: &Split| match split {
        Split::Range { total, unit } if total == argument => Some(*unit),
        Split::Tiles { rows, tile_rows, .. } if rows == argument => Some(u64::from(*tile_rows)),
        Split::Tiles { columns, tile_columns, .. } if columns == argument => Some(u64::from(*tile_columns)),
        _ => None,
    };
    profile.stages.iter().filter_map(|stage| of(&stage.split)).max()
}

fn example(schema: &Value, full_unit: Option<u64>) -> Value {
    if let Some(stated) = schema.pointer("/examples/0").or_else(|| schema.pointer("/enum/0")) {
        return stated.clone();
    }
    let number = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(unit) = full_unit {
        let unit = unit.clamp(number("minimum").unwrap_or(0), number("maximum").unwrap_or(u64::MAX));
        return unit.into();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| 1.into()),
        Some("number") => schema.get("minimum").cloned().unwrap_or_else(|| 1.0.into()),
        Some("boolean") => false.into(),
        Some("array") => {
            let item = schema.get("items").map_or(Value::from(1), |items| example(items, None));
            let least = number("minItems").unwrap_or(1).min(WHOLE_UNITS_MAX);
            (0..least.max(1)).map(|_| item.clone()).collect()
        }
        Some("object") => Value::Object(Map::new()),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn profile(args: Value) -> Profile {
        serde_json::from_value(json!({
            "summary": "s", "args": args, "stages": [{
                "name": "s", "split": {"range": {"total": "n", "unit": 4096}},
                "parts": [{"name": "x", "kind": "count"}],
                "limits": {"fuel": 100, "memory_bytes": 65536, "output_bytes": 100}, "fuel_expected": 50
            }]
        }))
        .unwrap()
    }

    #[test]
    fn stated_examples_come_first_else_a_full_unit_and_the_least() {
        let stated = profile(json!({"type": "object", "examples": [{"n": 7}, {"n": 8}]}));
        assert_eq!(examples(&stated), [json!({"n": 7}), json!({"n": 8})]);
        let made = profile(json!({
            "type": "object", "required": ["n", "p", "kind", "d"],
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 1000},
                "p": {"type": "number", "minimum": 0.25},
                "kind": {"type": "string", "enum": ["call", "put"]},
                "d": {"type": "number", "default": 3.0},
                "optional": {"type": "number"}
            }
        }));
        assert_eq!(examples(&made), [json!({"n": 1000, "p": 0.25, "kind": "call"})]);
    }
}
