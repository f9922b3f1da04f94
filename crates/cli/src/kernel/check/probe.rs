//! Whether what a manifest declares is near what its units take.

use forge_contract::FailureCode;
use forge_lifecycle::plan::Kernel;

use super::findings::Findings;
use super::trial::{Engines, Trial};
use crate::number;

/// Expected and measured fuel may differ by this factor before it is worth a word: quotes and shard sizes follow it.
const FUEL_FACTOR: u64 = 2;
/// Declared memory may be this many times what was needed.
const MEMORY_FACTOR: u64 = 4;
/// Memory below which no word is lost, bytes.
const MEMORY_SMALL: u64 = 4 << 20;
/// Halvings of the memory limit that are tried.
const HALVINGS: u32 = 10;

/// Warns where `fuel_expected` is far from what full units burned.
pub fn fuel(kernel: &Kernel, findings: &mut Findings) {
    for (name, profile) in &kernel.manifest.profiles {
        for stage in &profile.stages {
            let Some((least, most)) = findings.burned(name, &stage.name) else { continue };
            let expected = stage.fuel_expected;
            if expected.saturating_mul(FUEL_FACTOR) < least || expected / FUEL_FACTOR > most {
                findings.warnings.push(format!(
                    "{name} {}: fuel_expected is {}, full units burned {}; quotes and shard sizes follow it: set it near {}",
                    stage.name,
                    number::count(expected),
                    if least == most { number::count(most) } else { format!("{} to {}", number::count(least), number::count(most)) },
                    number::count(most),
                ));
            }
        }
    }
}

/// Warns where a stage declares far more memory than its largest unit here needs.
pub fn memory(trials: &[Trial], engines: &Engines, findings: &mut Findings) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for trial in trials {
        let place = (trial.profile.as_str(), trial.stage.as_str());
        if seen.contains(&place) || !trial.is_full() || trial.task.limits.memory_bytes <= MEMORY_SMALL {
            continue;
        }
        seen.push(place);
        let declared = trial.task.limits.memory_bytes;
        let needed = needed(trial, engines);
        if needed.saturating_mul(MEMORY_FACTOR) <= declared {
            findings.warnings.push(format!(
                "{trial}: limits.memory_bytes is {declared}, {needed} were enough; what is declared is cleared between units and reserved by agents"
            ));
        }
    }
}

/// The least memory limit, by halving, under which a unit still gives its answer.
fn needed(trial: &Trial, engines: &Engines) -> u64 {
    let mut enough = trial.task.limits.memory_bytes;
    let mut tried = trial.clone();
    for _ in 0..HALVINGS {
        tried.task.limits.memory_bytes = enough / 2;
        match engines.run_one(&tried) {
            Ok(_) => enough /= 2,
            Err(failure) if failure.code == FailureCode::AgentMemoryLimit => return enough,
            Err(_) => return trial.task.limits.memory_bytes,
        }
    }
    enough
}
