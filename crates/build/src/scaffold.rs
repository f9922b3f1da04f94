//! A new kernel project: it builds, passes `check` and runs at once, and needs nothing of this checkout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use forge_contract::manifest::{Manifest, ManifestError};

/// The guest kit for Rust, file by file: `sdk-guest/` and the interface it is made from.
const KIT: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/kit.rs"));
/// The guest kit for C.
pub const HEADER: &str = include_str!("../../../sdk-guest/c/forgepool.h");
/// Versions and checksums of what the kit for Rust needs: those that the built-in kernels are built with.
const LOCK: &str = include_str!("../../../workloads/Cargo.lock");
/// The kit's package.
const KIT_PACKAGE: &str = "forge-sdk-guest";

/// A language that a kernel can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, with the guest kit beside it.
    Rust,
    /// C, with the guest kit in one header.
    C,
    /// WebAssembly text.
    Wat,
}

/// Why there is no new project.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be a kernel's.
    #[error("'{name}': {source}")]
    Name {
        /// The name.
        name: String,
        /// The rule.
        source: ManifestError,
    },
    /// Something is there already.
    #[error("{} is there and not empty; give another folder with --dir", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A template is broken.
    #[error("the template of kernel.toml does not parse: {reason}")]
    Template {
        /// What the parser says.
        reason: String,
    },
}

/// Files of a new project: path inside it, and content.
pub type Files = Vec<(PathBuf, String)>;

/// The project of a kernel named `namespace/name`.
///
/// # Errors
/// `Name` where a kernel cannot be called so.
pub fn files(label: &str, language: Language) -> Result<Files, ScaffoldError> {
    let name = label.rsplit('/').next().unwrap_or(label);
    let words = Words { label, name, language };
    let manifest = words.filled(match language {
        Language::Rust => include_str!("../templates/rust/kernel.toml"),
        Language::C => include_str!("../templates/c/kernel.toml"),
        Language::Wat => include_str!("../templates/wat/kernel.toml"),
    });
    check(label, &manifest)?;
    let mut files: Files = vec![
        ("kernel.toml".into(), manifest),
        ("README.md".into(), words.filled(include_str!("../templates/README.md"))),
        ("contract.json".into(), words.filled(include_str!("../templates/contract.json"))),
        (".gitignore".into(), "/target\n".into()),
    ];
    match language {
        Language::Rust => {
            files.push(("Cargo.toml".into(), words.filled(include_str!("../templates/rust/Cargo.toml"))));
            files.push(("Cargo.lock".into(), lock(&format!("kernel-{name}"))));
            files.push(("src/lib.rs".into(), words.filled(include_str!("../templates/rust/lib.rs"))));
            let kit = KIT.iter().map(|(path, text)| (Path::new("forge-sdk").join(path), (*text).to_owned()));
            files.extend(kit);
        }
        Language::C => {
            files.push(("kernel.c".into(), words.filled(include_str!("../templates/c/kernel.c"))));
            files.push(("forgepool.h".into(), HEADER.into()));
        }
        Language::Wat => {
            files.push(("kernel.wat".into(), words.filled(include_str!("../templates/wat/kernel.wat"))));
        }
    }
    Ok(files)
}

/// Writes a project into a folder that does not exist or is empty.
///
/// # Errors
/// `Exists`, or `Write` with the file.
pub fn write(folder: &Path, files: &Files) -> Result<(), ScaffoldError> {
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(ScaffoldError::Exists { folder: folder.to_owned() });
    }
    for (path, text) in files {
        let path = folder.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text)).map_err(|source| ScaffoldError::Write { path, source })?;
    }
    Ok(())
}

fn check(label: &str, manifest: &str) -> Result<(), ScaffoldError> {
    let template = |reason: String| ScaffoldError::Template { reason };
    let parsed: Manifest = toml::from_str(manifest).map_err(|e| template(e.to_string()))?;
    let json = serde_json::to_vec(&parsed).map_err(|e| template(e.to_string()))?;
    match Manifest::parse(&json) {
        Ok(_) => Ok(()),
        Err(source) => Err(ScaffoldError::Name { name: label.to_owned(), source }),
    }
}

struct Words<'a> {
    label: &'a str,
    name: &'a str,
    language: Language,
}

impl Words<'_> {
    fn filled(&self, template: &str) -> String {
        let disc = "The area of a disc by Monte Carlo.";
        // fuel: measured, rounded.
        let (language, source, what, profile, args, fuel) = match self.language {
            Language::Rust => {
                ("Rust", "src/lib.rs", disc, "disc.v1", r#"{ "samples": 1000000, "radius": 2.0 }"#, "11_600_000")
            }
            Language::C => ("C", "kernel.c", disc, "disc.v1", r#"{ "samples": 1000000, "radius": 2.0 }"#, "17_000_000"),
            Language::Wat => {
                let what = "Counts the multiples of 3 or 5.";
                ("WebAssembly text", "kernel.wat", what, "multiples.v1", r#"{ "limit": 1000000 }"#, "1_440_000")
            }
        };
        [
            ("{{label}}", self.label),
            ("{{name}}", self.name),
            ("{{language}}", language),
            ("{{source}}", source),
            ("{{what}}", what),
            ("{{profile}}", profile),
            ("{{args}}", args),
            ("{{fuel}}", fuel),
        ]
        .iter()
        .fold(template.to_owned(), |text, (mark, word)| text.replace(mark, word))
    }
}

/// One package of a lock file.
struct Locked<'a> {
    name: &'a str,
    version: &'a str,
    text: &'a str,
    needs: Vec<&'a str>,
}

impl<'a> Locked<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let field = |name: &str| {
            let start = text.find(&format!("{name} = \""))? + name.len() + 4;
            text.get(start..)?.split('"').next()
        };
        let list = text.split_once("dependencies = [").map_or("", |(_, rest)| rest);
        let needs = list.split('"').skip(1).step_by(2).collect();
        Some(Self { name: field("name")?, version: field("version")?, text: text.trim(), needs })
    }

    /// Whether a line of another package's dependencies means this one.
    fn is(&self, need: &str) -> bool {
        need == self.name || need.split_once(' ').is_some_and(|(name, rest)| name == self.name && rest == self.version)
    }
}

/// A lock file for a package that needs the kit alone.
fn lock(package: &str) -> String {
    let all: Vec<Locked<'_>> = LOCK.split("[[package]]").skip(1).filter_map(Locked::read).collect();
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    let mut queue = vec![KIT_PACKAGE];
    while let Some(need) = queue.pop() {
        for (index, found) in all.iter().enumerate().filter(|(_, one)| one.is(need)) {
            if kept.insert(index) {
                queue.extend(&found.needs);
            }
        }
    }
    let kept: Vec<&Locked<'_>> = kept.iter().filter_map(|index| all.get(*index)).collect();
    let once = |name: &str| kept.iter().filter(|one| one.name == name).count() == 1;
    let own = format!("name = \"{package}\"\nversion = \"0.1.0\"\ndependencies = [\n \"{KIT_PACKAGE}\",\n]");
    let mut blocks = vec![(package.to_owned(), own)];
    for one in &kept {
        // A version is named only where there are two.
        let single = one.needs.iter().filter_map(|need| need.split_once(' ').filter(|(name, _)| once(name)));
        let text = single.fold(one.text.to_owned(), |text, (name, version)| {
            text.replace(&format!("\"{name} {version}\""), &format!("\"{name}\""))
        });
        blocks.push((format!("{} {}", one.name, one.version), text));
    }
    blocks.sort();
    let head = LOCK.split("[[package]]").next().unwrap_or_default();
    blocks.iter().fold(head.trim_end().to_owned() + "\n", |text, (_, block)| format!("{text}\n[[package]]\n{block}\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_language_has_a_manifest_a_source_and_no_mark_left() {
        for (language, source) in
            [(Language::Rust, "src/lib.rs"), (Language::C, "kernel.c"), (Language::Wat, "kernel.wat")]
        {
            let files = files("acme/first", language).unwrap();
            for wanted in ["kernel.toml", "README.md", "contract.json", source] {
                assert!(files.iter().any(|(path, _)| path == Path::new(wanted)), "{wanted}");
            }
            let own = files.iter().filter(|(path, _)| !path.starts_with("forge-sdk"));
            for (path, text) in own {
                assert!(!text.contains("{{"), "{}", path.display());
            }
            let readme = files.iter().find(|(path, _)| path == Path::new("README.md")).unwrap();
            assert!(readme.1.lines().count() <= 10);
        }
    }

    #[test]
    fn names_follow_the_manifest() {
        for name in ["Upper", "a/b/c", "", "9a", "a_b", "acme/"] {
            assert!(matches!(files(name, Language::Wat), Err(ScaffoldError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn a_lock_file_holds_the_kit_and_what_it_needs() {
        let lock = lock("kernel-first");
        for wanted in ["kernel-first", KIT_PACKAGE, "serde_json", "wit-bindgen"] {
            assert!(lock.contains(&format!("name = \"{wanted}\"")), "{wanted}");
        }
        assert!(!lock.contains("kernel-mc") && lock.starts_with("# This file is automatically @generated"));
        let parsed: toml::Table = lock.parse().unwrap();
        let names: Vec<&str> =
            parsed["package"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = std::env::temp_dir().join(format!("forge-build-scaffold-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        let files = files("acme/first", Language::Wat).unwrap();
        write(&folder, &files).unwrap();
        assert!(folder.join("kernel.wat").is_file());
        assert!(matches!(write(&folder, &files), Err(ScaffoldError::Exists { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
