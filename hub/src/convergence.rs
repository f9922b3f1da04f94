//! Where and why a job ended early, as the client sees it.

use forge_contract::stop::StopRule;
use forge_lifecycle::action::Target;
use forge_lifecycle::converge::{Convergence, Measured};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where and why a job with a stop rule ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConvergenceBlock {
    /// The stage that has the rule.
    pub stage: String,
    /// The part the rule looks at.
    pub part: String,
    /// The rule, as it stands in args.
    pub rule: RuleBlock,
    /// Where the stage ended.
    pub stopped_at: StoppedAtBlock,
    /// `half_width`, `variance`, `budget` or `exhausted`: all work was done and no target was reached.
    pub reason: String,
    /// What was found there.
    pub measured: MeasuredBlock,
    /// Checkpoints looked at.
    pub checkpoints: u64,
}

/// A stop rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RuleBlock {
    /// Half the width of the mean's interval, as a share of the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width: Option<f64>,
    /// The confidence of that interval.
    pub confidence: f64,
    /// Change of the variance since the checkpoint before, as a share of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_change: Option<f64>,
    /// Items at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<u64>,
}

/// Where a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoppedAtBlock {
    /// Units done.
    pub unit: u64,
    /// Items in them.
    pub items: u64,
}

/// What was found at a checkpoint; what is not defined there is left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredBlock {
    /// Values.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Their variance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// Half the width of the mean's interval at the rule's confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width: Option<f64>,
    /// The same as a share of the mean; absent where the mean is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Change of the variance since the checkpoint before, as a share of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_change: Option<f64>,
}

/// How far the interval is from what a stop rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetBlock {
    /// The interval's confidence.
    pub confidence: f64,
    /// Half its width as a share of the mean: the target.
    pub half_width: f64,
    /// The same as it is so far; absent where the mean is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// Units done at the next look.
    pub checkpoint: u64,
}

impl From<&Convergence> for ConvergenceBlock {
    fn from(end: &Convergence) -> Self {
        let StopRule { half_width, confidence, variance_change, budget } = end.rule;
        let Measured { n, mean, variance, half_width: measured, relative, variance_change: changed } = end.measured;
        Self {
            stage: end.stage.clone(),
            part: end.part.clone(),
            rule: RuleBlock { half_width, confidence: confidence.probability(), variance_change, budget },
            stopped_at: StoppedAtBlock { unit: end.stopped_at.unit, items: end.stopped_at.items },
            reason: end.reason.as_str().into(),
            measured: MeasuredBlock { n, mean, variance, half_width: measured, relative, variance_change: changed },
            checkpoints: end.checkpoints,
        }
    }
}

impl From<Target> for TargetBlock {
    fn from(target: Target) -> Self {
        let Target { confidence, half_width, relative, checkpoint } = target;
        Self { confidence, half_width, relative, checkpoint }
    }
}
