//! The golden corpus on another processor: built for aarch64, run under user-mode emulation.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::steps::{Steps, has, target_dir};

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
const COMPILER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Where Debian's cross packages keep the libraries of the other processor.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// Says exactly what is missing; installs nothing.
pub fn require() -> Result<()> {
    let mut missing = Vec::new();
    if !has_std()? {
        missing.push("the standard library for it (rustup target add aarch64-unknown-linux-gnu)");
    }
    if !has(COMPILER, &["--version"]) {
        missing.push("a C compiler for it (Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)");
    }
    if !has(EMULATOR, &["--version"]) {
        missing.push("an emulator (Debian: apt-get install qemu-user)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("the golden corpus on aarch64 needs {}", missing.join("; "))
}

/// Whether the toolchain in use can build for it.
fn has_std() -> Result<bool> {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", TRIPLE]).output();
    let folder = String::from_utf8(asked.context("rustc cannot be started")?.stdout)?;
    Ok(std::fs::read_dir(folder.trim()).is_ok_and(|mut entries| entries.next().is_some()))
}

/// Builds the runner and runs it; it compares with the files every processor shares.
pub fn run(steps: &mut Steps) -> Result<()> {
    let folder = target_dir()?.join("aarch64");
    let folder = folder.to_string_lossy();
    let build = [
        "build",
        "--locked",
        "--package",
        "forge-golden",
        "--bin",
        "golden-runner",
        "--target",
        TRIPLE,
        "--target-dir",
        &folder,
    ];
    let environment =
        [("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", COMPILER), ("CC_aarch64_unknown_linux_gnu", COMPILER)];
    steps.run_with("golden runner for aarch64", "cargo", &build, &environment)?;
    let runner = format!("{folder}/{TRIPLE}/debug/golden-runner");
    steps.run("golden corpus on aarch64", EMULATOR, &["-L", LIBRARIES, &runner])
}
