//! What a kernel project is written in, told from its files.

use std::path::{Path, PathBuf};

/// A project's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A cargo package whose library is a `cdylib`.
    Rust,
    /// C files, in the order they are compiled.
    C(Vec<PathBuf>),
    /// WebAssembly text.
    Text(PathBuf),
    /// `kernel.wasm`: a core module or component that another toolchain made.
    Binary(PathBuf),
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing to build.
    #[error(
        "{}: no source: expected Cargo.toml (Rust), *.c here or in src/ (C), one *.wat (text) or kernel.wasm (a module made elsewhere); \
         `forgepool kernel new` makes a project",
        folder.display()
    )]
    None {
        /// The project.
        folder: PathBuf,
    },
    /// More than one.
    #[error("{}: {} could each be the source; keep one", folder.display(), found.join(" and "))]
    Several {
        /// The project.
        folder: PathBuf,
        /// What was found.
        found: Vec<&'static str>,
    },
}

impl Source {
    /// Looks at a project's folder.
    ///
    /// # Errors
    /// Where there is no source, or more than one kind.
    pub fn find(folder: &Path) -> Result<Self, SourceError> {
        let rust = folder.join("Cargo.toml").is_file();
        let mut c = with_extension(folder, "c");
        c.extend(with_extension(&folder.join("src"), "c"));
        let text = with_extension(folder, "wat");
        let binary = folder.join("kernel.wasm");
        if rust {
            // A Rust package may compile C of its own.
            return Ok(Self::Rust);
        }
        let kinds = [
            (!c.is_empty(), "C files"),
            (text.len() == 1, "a .wat file"),
            (text.len() > 1, "several .wat files"),
            (binary.is_file(), "kernel.wasm"),
        ];
        let found: Vec<&'static str> = kinds.iter().filter(|kind| kind.0).map(|kind| kind.1).collect();
        match (found.as_slice(), text.into_iter().next()) {
            ([], _) => Err(SourceError::None { folder: folder.to_owned() }),
            (["C files"], _) => Ok(Self::C(c)),
            (["a .wat file"], Some(text)) => Ok(Self::Text(text)),
            (["kernel.wasm"], _) => Ok(Self::Binary(binary)),
            _ => Err(SourceError::Several { folder: folder.to_owned(), found }),
        }
    }
}

/// Files of a folder with an extension, by name.
fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == extension) && path.is_file());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_files_say_the_language() {
        let folder = std::env::temp_dir().join(format!("forge-build-source-{}", std::process::id()));
        let found = |files: &[&str]| {
            std::fs::remove_dir_all(&folder).ok();
            std::fs::create_dir_all(folder.join("src")).unwrap();
            files.iter().for_each(|file| std::fs::write(folder.join(file), "").unwrap());
            Source::find(&folder)
        };
        assert!(matches!(found(&[]), Err(SourceError::None { .. })));
        assert_eq!(found(&["Cargo.toml", "src/a.c"]).unwrap(), Source::Rust);
        let c = found(&["src/a.c", "b.c", "notes.txt"]).unwrap();
        assert_eq!(c, Source::C(vec![folder.join("b.c"), folder.join("src/a.c")]));
        assert_eq!(found(&["k.wat"]).unwrap(), Source::Text(folder.join("k.wat")));
        assert_eq!(found(&["kernel.wasm"]).unwrap(), Source::Binary(folder.join("kernel.wasm")));
        let both = found(&["k.wat", "src/a.c"]).unwrap_err().to_string();
        assert!(both.contains("C files and a .wat file"), "{both}");
        assert!(matches!(found(&["k.wat", "l.wat"]), Err(SourceError::Several { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
