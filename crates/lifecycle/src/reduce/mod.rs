//! Folded fragments to output: plain functions of the fragment, nothing of who computed it.

use forge_contract::canon::Writer;
use forge_contract::fragment::tree::FoldError;
use forge_contract::fragment::{self, CombineError, Fragment, Moments, Part, TileView, View};
use forge_contract::manifest::PartKind;
use forge_contract::task::Cut;
use forge_contract::{Digest, Failure, FailureCode};
use serde_json::{Map, Value};

use crate::action::StageFragment;
use crate::artifact::Artifact;
use crate::plan::{Plan, StagePlan};

mod distribution;
mod mosaic;
mod npy;
mod part;

pub use mosaic::{Mosaic, MosaicError};
pub use part::artifact_name;

/// The 97.5% quantile of the normal distribution: half the width of a 95% interval in standard errors.
pub const NORMAL_975: f64 = 1.959_963_984_540_054;

/// The digest of a result: every stage's name and folded fragment, in order.
///
/// **Determinism**: a function of component, profile, args and seed; never of shards, agents or time.
#[must_use]
pub fn result_digest(stages: &[StageFragment]) -> Digest {
    let mut w = Writer::new();
    w.u64(stages.len() as u64);
    for stage in stages {
        w.str(&stage.stage);
        w.digest(&stage.digest);
    }
    Digest::tagged("forgepool v1 result", &w.into_bytes())
}

/// Whether a stage's folded fragment is whole: its parts as declared and counted, its tiles a matrix without hole or
/// overlap.
///
/// # Errors
/// `aggregation.incomplete` where something is missing, `aggregation.mismatch` where pieces do not fit, each with its
/// place.
pub fn whole(stage: &StagePlan, root: &Fragment, items: u64) -> Result<(), Failure> {
    let failed = |code, detail: String| Failure::new(code, format!("stage '{}': {detail}", stage.name));
    root.check(&stage.parts, items).map_err(|e| failed(FailureCode::AggregationIncomplete, e.to_string()))?;
    let size = match stage.cut {
        Cut::Tiles { rows, columns, .. } => Some((rows, columns)),
        _ => None,
    };
    for named in &root.parts {
        let Part::Tiles(tiles) = &named.part else { continue };
        if let Err(error) = Mosaic::new(tiles.iter().map(TileView::of), size) {
            let code = match error {
                MosaicError::Empty | MosaicError::Hole { .. } => FailureCode::AggregationIncomplete,
                _ => FailureCode::AggregationMismatch,
            };
            return Err(failed(code, format!("part '{}': {error}", named.name)));
        }
    }
    Ok(())
}

/// The object `hub.output`: one member per shown part, later stages over earlier ones.
///
/// **Determinism**: a function of the fragments' bytes; one rounding per operation, no transcendental function.
///
/// # Errors
/// `aggregation.mismatch` where a fragment cannot be read.
pub fn output(plan: &Plan, fragments: &[StageFragment]) -> Result<Value, Failure> {
    let mut members = Map::new();
    for (stage, done) in plan.stages.iter().zip(fragments) {
        let unfit = |reason: String| unfit(&stage.name, &reason);
        let views = fragment::view(&done.bytes).map_err(|e| unfit(e.to_string()))?;
        for (spec, (_, view)) in stage.parts.iter().zip(&views).filter(|(spec, _)| spec.shown) {
            let shown = part::describe(&spec.name, view, spec.unit.as_deref()).map_err(|e| unfit(e.to_string()))?;
            members.insert(spec.name.clone(), shown);
        }
    }
    Ok(Value::Object(members))
}

/// The files that `hub.output` names: a `.npy` file for every shown tile part, later stages over earlier ones.
///
/// # Errors
/// `aggregation.mismatch` where a fragment cannot be read.
pub fn files(plan: &Plan, fragments: &[StageFragment]) -> Result<Vec<Artifact>, Failure> {
    let mut files: Vec<Artifact> = Vec::new();
    for (stage, done) in plan.stages.iter().zip(fragments) {
        let unfit = |reason: String| unfit(&stage.name, &reason);
        if !stage.parts.iter().any(|spec| spec.shown && spec.kind == PartKind::Tile) {
            continue;
        }
        let views = fragment::view(&done.bytes).map_err(|e| unfit(e.to_string()))?;
        for (spec, (_, view)) in stage.parts.iter().zip(&views).filter(|(spec, _)| spec.shown) {
            let View::Tiles(tiles) = view else { continue };
            let matrix = Mosaic::new(tiles.iter().copied(), None).map_err(|e| unfit(e.to_string()))?;
            let name = part::artifact_name(&spec.name);
            files.retain(|earlier| earlier.entry.name != name);
            files.push(Artifact::new(name, "application/x-npy", npy::file(&matrix)));
        }
    }
    Ok(files)
}

fn unfit(stage: &str, reason: &str) -> Failure {
    Failure::new(FailureCode::AggregationMismatch, format!("stage '{stage}': {reason}"))
}

/// Why folding failed, as the job's failure.
#[must_use]
pub fn fold_failure(error: &FoldError) -> Failure {
    let code = match error {
        FoldError::Combine(CombineError::Overflow { .. }) => FailureCode::AggregationOverflow,
        FoldError::Combine(_) | FoldError::Misplaced { .. } => FailureCode::AggregationMismatch,
    };
    Failure::new(code, error.to_string())
}

/// Mean and second moment of two groups together, for display (Chan, Golub, LeVeque 1979).
#[must_use]
pub fn merged(a: &Moments, b: &Moments) -> Moments {
    let n = a.n.saturating_add(b.n);
    if a.n == 0 || b.n == 0 {
        return if a.n == 0 { *b } else { *a };
    }
    let delta = b.mean - a.mean;
    let share = b.n as f64 / n as f64;
    Moments { n, mean: a.mean + delta * share, m2: a.m2 + b.m2 + delta * delta * share * a.n as f64, m3: 0.0, m4: 0.0 }
}
