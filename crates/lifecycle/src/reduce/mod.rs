//! Folded fragments to output: plain functions of the fragment, nothing of who computed it.

use forge_contract::canon::Writer;
use forge_contract::fragment::tree::FoldError;
use forge_contract::fragment::{CombineError, Fragment, Moments};
use forge_contract::{Digest, Failure, FailureCode};
use serde_json::{Map, Value};

use crate::action::StageFragment;
use crate::plan::Plan;

mod distribution;
mod part;

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

/// The object `hub.output`: one member per shown part, later stages over earlier ones.
///
/// **Determinism**: a function of the fragments' bytes; one rounding per operation, no transcendental function.
///
/// # Errors
/// `aggregation.mismatch` where a fragment cannot be read.
pub fn output(plan: &Plan, fragments: &[StageFragment]) -> Result<Value, Failure> {
    let mut members = Map::new();
    for (stage, done) in plan.stages.iter().zip(fragments) {
        let fragment = Fragment::decode(&done.bytes)
            .map_err(|e| Failure::new(FailureCode::AggregationMismatch, format!("stage '{}': {e}", stage.name)))?;
        for (spec, named) in stage.parts.iter().zip(&fragment.parts).filter(|(spec, _)| spec.shown) {
            members.insert(spec.name.clone(), part::describe(&named.part, spec.unit.as_deref()));
        }
    }
    Ok(Value::Object(members))
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
