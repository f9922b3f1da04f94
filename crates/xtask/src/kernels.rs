//! Builds the kernels under `workloads/` into `workloads/dist`, pinned in `workloads/pins.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use forge_build::Built;
use serde::{Deserialize, Serialize};

use crate::steps::{root, say};

const PINS_HEAD: &str = "# Written by `cargo xtask kernels`. `name@version` means these bytes for ever.\n\n";

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Rebuild and compare with what is committed; write nothing.
    #[arg(long)]
    pub check: bool,
}

/// `workloads/pins.toml`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pins {
    kernel: Vec<Pin>,
}

/// One published kernel.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pin {
    name: String,
    version: u32,
    /// BLAKE3 of the component.
    digest: String,
    bytes: usize,
    /// What built it; another toolchain may give other bytes.
    toolchain: String,
}

/// Builds every kernel.
pub fn run(args: &Args) -> Result<()> {
    let workloads = root()?.join("workloads");
    let mut pins = Pins { kernel: Vec::new() };
    let mut files = Vec::new();
    for project in projects(&workloads)? {
        let built = forge_build::build(&project).with_context(|| project.display().to_string())?;
        say(&format!("{} {} {} bytes", built.manifest.label(), built.digest, built.component.len()));
        files.push((workloads.join("dist").join(format!("{}.wasm", built.manifest.label())), built.component.clone()));
        pins.kernel.push(pin(&built));
    }
    let pins = format!("{PINS_HEAD}{}", toml::to_string(&pins)?);
    files.push((workloads.join("pins.toml"), pins.into_bytes()));
    if args.check { compare(&files) } else { write(&files) }
}

/// Folders with a `kernel.toml`, by name.
fn projects(workloads: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(workloads)? {
        let folder = entry?.path();
        if folder.join("kernel.toml").is_file() {
            found.push(folder);
        }
    }
    found.sort();
    if found.is_empty() { bail!("no kernel project under {}", workloads.display()) } else { Ok(found) }
}

fn pin(built: &Built) -> Pin {
    Pin {
        name: built.manifest.name.clone(),
        version: built.manifest.version,
        digest: built.digest.to_string(),
        bytes: built.component.len(),
        toolchain: built.toolchain.clone(),
    }
}

fn write(files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    for (path, bytes) in files {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn compare(files: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    for (path, bytes) in files {
        let committed = std::fs::read(path).with_context(|| path.display().to_string())?;
        if committed != *bytes {
            bail!(
                "{} is not what its source gives with the toolchain found here; pins.toml names the one it was built with",
                path.display()
            );
        }
    }
    say("kernels are as committed");
    Ok(())
}
