//! Builds the kernels under `workloads/`, `examples/kernels/` and `tests/kernels/` into their `dist`, pinned in their `pins.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use forge_build::{BuildError, Built, ToolchainError};
use serde::{Deserialize, Serialize};

use crate::steps::{root, say};

const PINS_HEAD: &str = "# Written by `cargo xtask kernels`. `name@version` means these bytes for ever.\n\n";

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Rebuild and compare with what is committed; write nothing.
    #[arg(long)]
    pub check: bool,
    /// Only one group.
    #[arg(long, value_enum)]
    pub only: Option<Group>,
}

/// A folder of kernels with its `dist` and `pins.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Those that come with the program.
    Workloads,
    /// Those that show how to write one.
    Examples,
    /// Those that only tests run.
    Tests,
}

impl Group {
    fn folder(self) -> Result<PathBuf> {
        Ok(root()?.join(match self {
            Self::Workloads => "workloads",
            Self::Examples => "examples/kernels",
            Self::Tests => "tests/kernels",
        }))
    }
}

/// `pins.toml`.
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
    for group in [Group::Workloads, Group::Examples, Group::Tests] {
        if args.only.is_none_or(|only| only == group) {
            run_group(group, args.check)?;
        }
    }
    Ok(())
}

fn run_group(group: Group, check: bool) -> Result<()> {
    let folder = group.folder()?;
    let mut pins = Pins { kernel: Vec::new() };
    let mut files = Vec::new();
    let mut whole = true;
    for project in projects(&folder)? {
        let built = match forge_build::build(&project) {
            // The examples' languages need more than the kernels that come with the program.
            Err(BuildError::Toolchain(error)) if check && group == Group::Examples && is_missing(&error) => {
                say(&format!("{} is not compared: {error}", project.display()));
                whole = false;
                continue;
            }
            built => built.with_context(|| project.display().to_string())?,
        };
        if check && group == Group::Examples && !is_pinned_toolchain(&folder, &built)? {
            say(&format!("{} is not compared: here {}, pinned by another", built.manifest.label(), built.toolchain));
            whole = false;
            continue;
        }
        say(&format!("{} {} {} bytes", built.manifest.label(), built.digest, built.component.len()));
        files.push((folder.join("dist").join(file_name(&built)), built.component.clone()));
        pins.kernel.push(pin(&built));
    }
    let pins = format!("{PINS_HEAD}{}", toml::to_string(&pins)?);
    if whole {
        files.push((folder.join("pins.toml"), pins.into_bytes()));
    }
    if check { compare(&files) } else { write(&files) }
}

/// `name@version.wasm`, the name without its namespace.
fn file_name(built: &Built) -> String {
    let label = built.manifest.label();
    format!("{}.wasm", label.rsplit('/').next().unwrap_or(&label))
}

fn is_missing(error: &ToolchainError) -> bool {
    matches!(error, ToolchainError::Missing | ToolchainError::MissingClang | ToolchainError::MissingLinker)
}

/// Whether the toolchain found is the one that the committed component was built with.
fn is_pinned_toolchain(folder: &Path, built: &Built) -> Result<bool> {
    let path = folder.join("pins.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let pins: Pins = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let pin = pins.kernel.iter().find(|pin| pin.name == built.manifest.name && pin.version == built.manifest.version);
    Ok(pin.is_none_or(|pin| pin.toolchain == built.toolchain))
}

/// Folders with a `kernel.toml`, by name.
fn projects(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let project = entry?.path();
        if project.join("kernel.toml").is_file() {
            found.push(project);
        }
    }
    found.sort();
    if found.is_empty() { bail!("no kernel project under {}", folder.display()) } else { Ok(found) }
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
