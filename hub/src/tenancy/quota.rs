//! What a project's limits say of a job, before it begins.

use forge_lifecycle::plan::{Plan, Terms};

use crate::store::tenancy::{Amount, Binding, Exceeded, LimitName, Limits};

/// The first limit that a job of this plan would break.
#[must_use]
pub fn broken(limits: &Limits, plan: &Plan) -> Option<Exceeded> {
    if let Some(least) = limits.verify_min.filter(|least| plan.verify < *least) {
        let (value, asked) = (Amount::Mode(least), Amount::Mode(plan.verify));
        return Some(Exceeded { name: LimitName::VerifyMin, value, asked });
    }
    let iterations = plan.stages.iter().fold(0u64, |sum, stage| sum.saturating_add(stage.items));
    Exceeded::by(LimitName::IterationsPerJob, limits.iterations_per_job, iterations)
        .or_else(|| Exceeded::by(LimitName::FuelPerJob, limits.fuel_per_job, plan.quote.fuel))
}

/// What a project adds to the plans of its jobs.
#[must_use]
pub fn terms(limits: &Limits, binding: &Binding) -> Terms {
    Terms { requires: binding.requires(), fuel_max: limits.fuel_per_job }
}
