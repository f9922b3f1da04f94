//! A component in hand: built from a project, or read from a file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forge_build::Built;
use forge_contract::Digest;
use forge_contract::manifest::Manifest;

/// A component and where it came from.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The bytes.
    pub component: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// The project's folder, where it was built from one.
    pub project: Option<PathBuf>,
    /// The file: the one given, or the one written.
    pub file: PathBuf,
    /// What built it, where this program did.
    pub toolchain: Option<String>,
}

/// The component of a file, or of the project in a folder, which is built; nothing given is the folder one stands in.
///
/// # Errors
/// Neither is there, or the project does not build.
pub fn open(path: Option<&Path>) -> Result<Holding> {
    let path = path.unwrap_or(Path::new("."));
    if path.is_dir() {
        return build(path, None);
    }
    let component = std::fs::read(path).with_context(|| {
        format!("cannot read {}: expected a component's file or a project's folder", path.display())
    })?;
    let digest = Digest::of(&component);
    Ok(Holding { component, digest, project: None, file: path.to_owned(), toolchain: None })
}

/// Builds the project in a folder and writes the component, to `target/NAME-VERSION.wasm` where nothing else is said.
///
/// # Errors
/// The project does not build, or the file cannot be written.
pub fn build(folder: &Path, output: Option<&Path>) -> Result<Holding> {
    if !folder.join(forge_build::MANIFEST_FILE).is_file() {
        bail!(
            "{} has no {}: give a kernel project's folder, or make one with `forgepool kernel new`",
            folder.display(),
            forge_build::MANIFEST_FILE
        );
    }
    let folder = folder.canonicalize().with_context(|| format!("cannot use {}", folder.display()))?;
    let Built { component, digest, manifest, toolchain } = forge_build::build(&folder)?;
    let file = output.map_or_else(|| folder.join("target").join(file_name(&manifest)), Path::to_path_buf);
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    std::fs::write(&file, &component).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Holding { component, digest, project: Some(folder), file, toolchain: Some(toolchain) })
}

/// `NAME-VERSION.wasm`, the name without its namespace.
fn file_name(manifest: &Manifest) -> String {
    let name = manifest.name.rsplit('/').next().unwrap_or(&manifest.name);
    format!("{name}-{}.wasm", manifest.version)
}

/// A path as one would type it: relative to where one stands, where it lies below.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok().and_then(|here| here.canonicalize().ok());
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    match below {
        Some(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Some(below) => below.display().to_string(),
        None => path.display().to_string(),
    }
}
