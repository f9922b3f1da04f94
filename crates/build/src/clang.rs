//! The C compiler: clang for wasm32 and LLVM's linker, freestanding, no libc.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::ToolchainError;

/// Releases tried by name where the plain name is not installed, newest first.
const RELEASES: std::ops::RangeInclusive<u32> = 11..=24;
/// What a kernel may use of WebAssembly, and nothing that differs between machines: no contraction of products and sums,
/// no path of this machine, no name of a function.
const COMPILE: [&str; 16] = [
    "--target=wasm32-unknown-unknown",
    "-std=c11",
    "-O2",
    "-ffreestanding",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fno-ident",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror=implicit-function-declaration",
    "-msimd128",
    "-mbulk-memory",
    "-msign-ext",
    "-mnontrapping-fptoint",
    "-mmutable-globals",
];
/// Most of the memory that the sandbox clears between units would be the default's stack of 64 KiB or more.
const STACK_BYTES: u64 = 64 << 10;
const PAGE_BYTES: u64 = 65_536;

/// A C compiler and its linker.
#[derive(Debug, Clone)]
pub(crate) struct Clang {
    compiler: String,
    linker: String,
    /// First lines of what both say of their versions.
    version: String,
}

impl Clang {
    /// `clang` and `wasm-ld` by their plain names, else the newest installed release of each.
    pub(crate) fn find() -> Result<Self, ToolchainError> {
        let compiler = newest("clang", &|tool| says(tool, &["--version", "--target=wasm32-unknown-unknown"]))
            .ok_or(ToolchainError::MissingClang)?;
        let linker = newest("wasm-ld", &|tool| says(tool, &["--version"])).ok_or(ToolchainError::MissingLinker)?;
        Ok(Self { version: format!("{}, {}", compiler.1, linker.1), compiler: compiler.0, linker: linker.0 })
    }

    /// Compiler and linker in one line: what has to be the same for the same bytes.
    pub(crate) fn line(&self) -> String {
        format!("{}, wasm32 freestanding, wit-component 0.254", self.version)
    }

    /// Compiles and links a project's files and gives the core module's bytes.
    pub(crate) fn compile(
        &self,
        folder: &Path,
        sources: &[PathBuf],
        memory_bytes_max: u64,
    ) -> Result<PathBuf, ToolchainError> {
        let objects = folder.join("target/c");
        std::fs::create_dir_all(&objects)
            .map_err(|source| ToolchainError::Start { tool: objects.display().to_string(), source })?;
        let mut linked = Vec::new();
        for (number, file) in sources.iter().enumerate() {
            let object = objects.join(format!("{number}.o"));
            let mut command = Command::new(&self.compiler);
            command.args(COMPILE).arg(format!("-ffile-prefix-map={}=/kernel", folder.display()));
            command.arg("-I").arg(folder).arg("-c").arg(file).arg("-o").arg(&object);
            self.run(command, "clang")?;
            linked.push(object);
        }
        let module = objects.join("kernel.wasm");
        let pages = memory_bytes_max.div_ceil(PAGE_BYTES).max(1);
        let mut command = Command::new(&self.linker);
        command.args(["--no-entry", "--strip-all", "--gc-sections", "-z"]).arg(format!("stack-size={STACK_BYTES}"));
        command.arg("--stack-first").arg(format!("--max-memory={}", pages * PAGE_BYTES));
        command.args(&linked).arg("-o").arg(&module);
        self.run(command, "wasm-ld")?;
        Ok(module)
    }

    fn run(&self, mut command: Command, tool: &str) -> Result<(), ToolchainError> {
        // The compiler's words are for the author; standard output is the command's own.
        let output = command
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|source| ToolchainError::Start { tool: tool.into(), source })?;
        if output.status.success() {
            Ok(())
        } else {
            Err(ToolchainError::C { tool: tool.into(), status: output.status })
        }
    }
}

/// The plain name or the newest release, with the first line it says.
fn newest(name: &str, says: &dyn Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let plain = std::iter::once(name.to_owned());
    let releases = RELEASES.rev().map(|release| format!("{name}-{release}"));
    plain.chain(releases).find_map(|tool| says(&tool).map(|line| (tool, line)))
}

fn says(tool: &str, flags: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(flags).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_name_comes_before_the_newest_release() {
        let installed =
            |names: &'static [&str]| move |tool: &str| names.contains(&tool).then(|| format!("{tool} version"));
        let found = |names| newest("clang", &installed(names)).map(|found| found.0);
        assert_eq!(found(&["clang", "clang-19"]).as_deref(), Some("clang"));
        assert_eq!(found(&["clang-14", "clang-19"]).as_deref(), Some("clang-19"));
        assert_eq!(found(&[]), None);
    }
}
