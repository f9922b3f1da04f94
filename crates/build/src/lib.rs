//! Turns a kernel project into a component with its manifest inside, the same bytes wherever it is built.
//!
//! [`build`] compiles a project in Rust, C or WebAssembly text; [`component_from_core`] and [`from_wat`] start from what
//! another toolchain made; [`embed_manifest`] and [`check_interface`] finish and check any of them. [`scaffold`] makes a
//! new project.

mod advice;
mod clang;
mod component;
mod project;
pub mod scaffold;
mod seal;
mod sections;
mod source;
mod toolchain;

use std::path::{Path, PathBuf};

use forge_contract::Digest;
use forge_contract::manifest::Manifest;

pub use advice::advice;
pub use component::{
    ComponentError, check_checks, check_interface, component_from_core, embed_manifest, foreign_imports, from_binary,
    from_wat,
};
pub use project::{GOLDENS_FILE, MANIFEST_FILE, Project, ProjectError};
pub use source::{Source, SourceError};
pub use toolchain::{Toolchain, ToolchainError};

/// A kernel, built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The component's bytes.
    pub component: Vec<u8>,
    /// Their digest: what `name@version` is pinned to.
    pub digest: Digest,
    /// The manifest inside.
    pub manifest: Manifest,
    /// The compiler and target that made it, in one line.
    pub toolchain: String,
}

/// Why a kernel could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The project's files.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// What it is written in.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// What the compiler made.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// The artifact cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Builds the kernel project in a folder: `kernel.toml`, [`GOLDENS_FILE`] where there is one, and the source that
/// [`Source::find`] sees.
///
/// **Determinism**: with the same toolchain and lock file, the same bytes in any folder.
///
/// # Errors
/// Where the project cannot be read, no toolchain is found, the code does not compile, or the component has an import
/// that no kernel may have.
pub fn build(folder: &Path) -> Result<Built, BuildError> {
    let project = Project::read(folder)?;
    let memory = project.memory_bytes_max();
    let read = |path: PathBuf| std::fs::read(&path).map_err(|source| BuildError::Artifact { path, source });
    let (component, toolchain) = match Source::find(folder)? {
        Source::Rust => {
            let toolchain = Toolchain::find(folder)?;
            (component_from_core(&read(toolchain.compile(folder, memory)?)?)?, toolchain.line())
        }
        Source::C(files) => {
            let clang = clang::Clang::find()?;
            (component_from_core(&read(clang.compile(folder, &files, memory)?)?)?, clang.line())
        }
        Source::Text(path) => {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            (from_wat(&text)?, "WebAssembly text, wit-component 0.254".to_owned())
        }
        Source::Binary(path) => (from_binary(&read(path)?)?, "made elsewhere, wit-component 0.254".to_owned()),
    };
    finish(&component, project.manifest, toolchain)
}

/// Puts a manifest into a component and measures it.
///
/// # Errors
/// Where the component is none, or has an import that no kernel may have.
pub fn finish(component: &[u8], manifest: Manifest, toolchain: String) -> Result<Built, BuildError> {
    let component = embed_manifest(component, &manifest)?;
    check_interface(&component)?;
    check_checks(&component, &manifest)?;
    let digest = Digest::of(&component);
    Ok(Built { component, digest, manifest, toolchain })
}
