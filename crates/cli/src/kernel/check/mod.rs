//! `forgepool kernel check`: what admission and the verifier will do, here, with words for the author.

mod findings;
mod probe;
mod record;
mod sample;
mod trial;
mod verdicts;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use forge_lifecycle::admit;
use forge_lifecycle::plan::Kernel;

use crate::exit::Outcome;
use crate::kernel::holding::{self, Holding};
use crate::screen;
use findings::Findings;
use trial::{Engines, Trial};

/// Checks a kernel as the hub and its verifier will: imports, limits, known answers on three backends.
///
/// Each unit runs under Cranelift at two optimisation levels and under the Pulley interpreter; digests and fuel must be
/// equal everywhere, and equal to the known answers. A kernel's own check must pass what its units give, and refute it
/// with one number changed. A profile without known answers is tried with its schema's
/// `examples`, else with its defaults. Ends with code 9 where something is wrong; warnings alone end with 0.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A component's file, or a project's folder, which is built first [default: the folder you stand in]
    #[arg(value_name = "FILE|DIR")]
    path: Option<PathBuf>,
    /// Write what is found into goldens.json as the known answers, and build again
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    choice: sample::Choice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The project does not build, or an argument fits no profile.
pub fn run(args: &Args) -> Result<Outcome> {
    let mut holding = holding::open(args.path.as_deref())?;
    if args.record && holding.project.is_none() {
        bail!("--record writes goldens.json into a project: give its folder instead of a file");
    }
    let mut findings = Findings::of(&holding);
    if args.record {
        forget(&mut holding)?;
    }
    if let Some(kernel) = admitted(&holding, &mut findings) {
        let trials = judge(args, &kernel, &holding, &mut findings)?;
        if args.record && findings.errors.is_empty() {
            let folder = holding.project.clone().context("a project was checked")?;
            holding = record::write(&folder, &trials, &mut findings)?;
            findings.rebuilt(&holding);
        }
    }
    screen::print(&if args.json { screen::json(&findings.json()) } else { findings.render() })?;
    Ok(if findings.errors.is_empty() { Outcome::Done } else { Outcome::KernelUnfit })
}

/// Takes the old known answers out: those that are about to be replaced need not fit the manifest any more.
fn forget(holding: &mut Holding) -> Result<()> {
    let Some(folder) = &holding.project else { return Ok(()) };
    let mut manifest = forge_build::Project::read(folder)?.manifest;
    manifest.profiles.values_mut().for_each(|profile| profile.goldens.clear());
    holding.component = forge_build::embed_manifest(&holding.component, &manifest)?;
    Ok(())
}

/// What admission says; nothing where it refuses.
fn admitted(holding: &Holding, findings: &mut Findings) -> Option<Kernel> {
    for import in forge_build::foreign_imports(&holding.component).unwrap_or_default() {
        findings.errors.push(format!("imports {import}: {}", forge_build::advice(&import)));
    }
    match admit::inspect(&holding.component) {
        Ok(admitted) => {
            findings.admitted(&admitted.manifest);
            Some(Kernel { digest: admitted.digest, bytes: admitted.bytes, manifest: admitted.manifest })
        }
        Err(error) => {
            if !matches!(error, admit::AdmitError::Import { .. }) || findings.errors.is_empty() {
                findings.errors.push(error.to_string());
            }
            None
        }
    }
}

/// Runs the known answers, or samples, everywhere, and gives what ran.
fn judge(args: &Args, kernel: &Kernel, holding: &Holding, findings: &mut Findings) -> Result<Vec<Trial>> {
    screen::remark("compiling for three backends\n");
    let engines = match Engines::compile(&holding.component) {
        Ok(engines) => engines,
        Err(failure) => {
            findings.errors.push(trial::explained(&failure));
            return Ok(Vec::new());
        }
    };
    let mut trials = Vec::new();
    for (name, profile) in &kernel.manifest.profiles {
        if args.choice.skips(name) {
            continue;
        }
        let chosen = args.record || args.choice.is_given();
        if chosen || profile.goldens.is_empty() {
            trials.extend(sample::trials(kernel, name, &args.choice, &engines, findings)?);
        }
        if !chosen && profile.goldens.is_empty() {
            findings.warnings.push(format!(
                "{name} has no known answers, and without one the hub does not admit it; record them with `forgepool kernel check --record`"
            ));
        }
        if !chosen {
            trials.extend(trial::goldens(kernel, name, findings));
        }
    }
    for (number, trial) in trials.iter().enumerate() {
        screen::remark(&format!("unit {} of {}: {trial}\n", number + 1, trials.len()));
        findings.ran(trial, &engines.run(trial));
    }
    if kernel.manifest.checks {
        screen::remark("trying the kernel's check\n");
        verdicts::verdicts(&trials, &engines, findings);
    }
    probe::fuel(kernel, findings);
    probe::memory(&trials, &engines, findings);
    Ok(trials)
}
