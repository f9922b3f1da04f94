//! The compiler: rustup's WebAssembly target where it is installed, else Debian's packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "wasm-ld-19";
/// A page of linear memory, bytes.
const PAGE_BYTES: u64 = 65_536;

/// A compiler that makes WebAssembly.
#[derive(Debug, Clone)]
pub struct Toolchain {
    kind: Kind,
    /// `rustc --version`.
    version: String,
    sysroot: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The standard library comes compiled.
    Target,
    /// The standard library is compiled from `rust-web-src`.
    Debian,
}

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No compiler for the target.
    #[error(
        "no Rust compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian \
         `apt-get install rustc-web rust-web-src cargo-web lld-19`"
    )]
    Missing,
    /// No C compiler for the target.
    #[error(
        "no clang that makes wasm32: on Debian or Ubuntu `apt-get install clang lld`, on macOS `brew install llvm lld`; \
         clang and clang-11 to clang-24 are looked for in PATH"
    )]
    MissingClang,
    /// No linker for it.
    #[error(
        "clang is there, its linker wasm-ld is not: on Debian or Ubuntu `apt-get install lld`, on macOS \
         `brew install lld`; wasm-ld and wasm-ld-11 to wasm-ld-24 are looked for in PATH"
    )]
    MissingLinker,
    /// The C compiler or its linker refuses the code; it has printed why.
    #[error("the kernel does not build ({tool} ended with {status})")]
    C {
        /// The tool.
        tool: String,
        /// Exit status.
        status: std::process::ExitStatus,
    },
    /// A tool does not start.
    #[error("cannot run {tool}: {source}")]
    Start {
        /// The tool.
        tool: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The compiler refuses the code; it has printed why.
    #[error("the kernel does not compile (cargo ended with {status})")]
    Compile {
        /// Exit status.
        status: std::process::ExitStatus,
    },
    /// The package has no `cdylib`.
    #[error("the package made no {TARGET} library: its [lib] needs crate-type = [\"cdylib\", \"rlib\"]")]
    NoLibrary,
}

impl Toolchain {
    /// The toolchain for a project: the one that rustup or PATH give there if it has the target, else Debian's.
    ///
    /// # Errors
    /// `Missing`, with what to install.
    pub fn find(folder: &Path) -> Result<Self, ToolchainError> {
        if let Ok((version, sysroot)) = describe("rustc", folder)
            && sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
        {
            return Ok(Self { kind: Kind::Target, version, sysroot });
        }
        match describe(DEBIAN_RUSTC, folder) {
            Ok((version, sysroot))
                if sysroot.join("lib/rustlib/src/rust/library").is_dir() && starts(DEBIAN_LINKER) =>
            {
                Ok(Self { kind: Kind::Debian, version, sysroot })
            }
            _ => Err(ToolchainError::Missing),
        }
    }

    /// Compiler, target and encoder in one line: what has to be the same for the same bytes.
    #[must_use]
    pub fn line(&self) -> String {
        let library = match self.kind {
            Kind::Target => "its standard library",
            Kind::Debian => "build-std",
        };
        format!("{}, {TARGET} with {library}, wit-component 0.254", self.version)
    }

    /// Compiles the package in a folder and gives the core module's file.
    ///
    /// # Errors
    /// `Compile` where cargo fails; its words go to standard error.
    pub(crate) fn compile(&self, folder: &Path, memory_bytes_max: u64) -> Result<PathBuf, ToolchainError> {
        let mut command = Command::new(if self.kind == Kind::Debian { DEBIAN_CARGO } else { "cargo" });
        command.current_dir(folder).args([
            "build",
            "--release",
            "--lib",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ]);
        if self.workspace(folder).join("Cargo.lock").is_file() {
            command.arg("--locked");
        }
        if self.kind == Kind::Debian {
            let path = std::env::var_os("PATH").unwrap_or_default();
            command
                .args(["-Z", "build-std=std,panic_abort"])
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER)
                .env("PATH", [OsString::from("/usr/bin:"), path].into_iter().collect::<OsString>());
        }
        let output = command
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(folder, memory_bytes_max).join("\u{1f}"))
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|source| ToolchainError::Start { tool: "cargo".into(), source })?;
        if !output.status.success() {
            return Err(ToolchainError::Compile { status: output.status });
        }
        library(&output.stdout, folder).ok_or(ToolchainError::NoLibrary)
    }

    /// The folder of the package's workspace: its own where it is in none.
    fn workspace(&self, folder: &Path) -> PathBuf {
        let cargo = if self.kind == Kind::Debian { DEBIAN_CARGO } else { "cargo" };
        let asked = Command::new(cargo)
            .args(["locate-project", "--workspace", "--message-format", "plain"])
            .current_dir(folder)
            .output();
        let manifest = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
        let manifest = manifest.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| PathBuf::from(text.trim()));
        manifest.as_deref().and_then(Path::parent).unwrap_or(folder).to_path_buf()
    }

    /// No path of this machine and a memory that has a maximum.
    fn flags(&self, folder: &Path, memory_bytes_max: u64) -> Vec<String> {
        let pages = memory_bytes_max.div_ceil(PAGE_BYTES).max(1);
        let mut flags =
            vec!["-Ctarget-feature=+simd128".to_owned(), format!("-Clink-arg=--max-memory={}", pages * PAGE_BYTES)];
        // The checkout: a kernel's dependencies by path may lie anywhere in it. It is known by git, or, where it was
        // unpacked, by the interface.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let is_checkout = |f: &&Path| f.join(".git").exists() || f.join("wit/kernel.wit").is_file();
        let workspace = self.workspace(&folder);
        let sources = folder.ancestors().find(is_checkout).unwrap_or(&workspace);
        let packages = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
        let mut places = vec![(sources.to_path_buf(), "/kernel"), (self.sysroot.clone(), "/rust")];
        // Below it lies a folder named after the registry: which one served a package is nobody's business. The
        // compiler takes the last prefix that fits, so the longer ones follow.
        let registries =
            packages.iter().flat_map(|home| std::fs::read_dir(home.join("registry/src"))).flatten().flatten();
        let registries: Vec<PathBuf> = registries.map(|entry| entry.path()).collect();
        places.extend(packages.into_iter().map(|home| (home, "/packages")));
        places.extend(registries.into_iter().map(|registry| (registry, "/packages")));
        let remap = |(place, name): (PathBuf, &str)| format!("--remap-path-prefix={}={name}", place.display());
        flags.extend(places.into_iter().map(remap));
        flags
    }
}

/// Version and sysroot of a compiler, as it is in a folder (rustup chooses by folder).
fn describe(rustc: &str, folder: &Path) -> Result<(String, PathBuf), ToolchainError> {
    let ask = |flags: &[&str]| {
        let output = Command::new(rustc)
            .args(flags)
            .current_dir(folder)
            .output()
            .map_err(|source| ToolchainError::Start { tool: rustc.to_owned(), source })?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(ToolchainError::Missing)
        }
    };
    Ok((ask(&["--version"])?, PathBuf::from(ask(&["--print", "sysroot"])?)))
}

fn starts(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// The `.wasm` file of the folder's own package in cargo's messages.
fn library(messages: &[u8], folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let mut found = None;
    for line in messages.split(|b| *b == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        let manifest = message.get("manifest_path").and_then(|p| p.as_str()).map(Path::new);
        if manifest.and_then(Path::parent) != Some(&folder) {
            continue;
        }
        let files = message.get("filenames").and_then(|f| f.as_array());
        let wasm = files.into_iter().flatten().filter_map(|f| f.as_str()).find(|f| f.ends_with(".wasm"));
        found = wasm.map(PathBuf::from).or(found);
    }
    found
}
