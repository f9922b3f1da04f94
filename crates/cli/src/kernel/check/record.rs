//! Known answers, written into goldens.json.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use forge_contract::manifest::{GOLDEN_INPUT_BYTES_MAX, Golden, GoldenInput};

use super::findings::Findings;
use super::trial::Trial;
use crate::kernel::holding::{self, Holding};

/// Writes what the trials gave as the known answers of their profiles, and builds again.
///
/// # Errors
/// The file cannot be read or written, or the project does not build.
pub fn write(folder: &Path, trials: &[Trial], findings: &mut Findings) -> Result<Holding> {
    let path = folder.join(forge_build::GOLDENS_FILE);
    let mut held: BTreeMap<String, Vec<Golden>> = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    for trial in trials {
        held.insert(trial.profile.clone(), Vec::new());
    }
    for trial in trials {
        match golden(trial, findings) {
            Some(golden) => held.entry(trial.profile.clone()).or_default().push(golden),
            None => findings.warnings.push(format!(
                "{trial}: not recorded, what it reads is larger than the {GOLDEN_INPUT_BYTES_MAX} bytes a golden may carry"
            )),
        }
    }
    let text = serde_json::to_string_pretty(&held).context("goldens are JSON")? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    findings.recorded = Some(held.values().map(Vec::len).sum());
    holding::build(folder, None)
}

fn golden(trial: &Trial, findings: &Findings) -> Option<Golden> {
    let read: usize = trial.reads.iter().map(|(_, bytes)| bytes.len()).sum();
    let (digest, fuel) = findings.answer(trial).filter(|_| read <= GOLDEN_INPUT_BYTES_MAX)?;
    let inputs = trial.reads.iter().map(|(reference, bytes)| GoldenInput::new(&reference.name, bytes)).collect();
    Some(Golden {
        stage: trial.stage.clone(),
        args: trial.args.clone(),
        seed: trial.seed.clone(),
        unit: trial.unit,
        inputs,
        digest,
        fuel,
    })
}
