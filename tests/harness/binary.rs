//! Where the program under test is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The built `forgepool`: FORGEPOOL_BIN where set, else built once, with the profile this test was built with.
///
/// # Panics
/// It cannot be built.
pub fn forgepool() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| std::env::var_os("FORGEPOOL_BIN").map_or_else(build, PathBuf::from))
}

/// The checkout.
///
/// # Panics
/// Never: the manifest lies in a folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout")
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/system-HASH
    let folder = test.ancestors().nth(2).expect("tests run from the target directory").to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The selection that built this test: another one would turn other features on and build the engine once more.
    let selection: &[&str] = match folder.file_name().is_some_and(|name| name == "release") {
        true => &["--release", "--package", "forgepool", "--package", "forge-tests"],
        false => &["--workspace", "--bins"],
    };
    command.args(["build", "--quiet", "--locked"]).args(selection).current_dir(root());
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "cargo build of the programs: {status}");
    folder.join("forgepool")
}
