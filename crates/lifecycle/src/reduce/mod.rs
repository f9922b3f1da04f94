//! Folded fragments to output.

use forge_contract::Digest;
use forge_contract::canon::Writer;

use crate::action::StageFragment;

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
