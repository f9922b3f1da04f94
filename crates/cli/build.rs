//! Embeds the pinned kernels of `workloads/dist` into the program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workloads = root.join("../../workloads");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    for watched in ["dist", "pins.toml"] {
        writeln_cargo("rerun-if-changed", &workloads.join(watched));
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(workloads.join("dist"))
        .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    paths.sort();
    let mut list = String::from("&[\n");
    for path in &paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = path.canonicalize().expect("a file just listed has a path");
        writeln_cargo("rerun-if-changed", &path);
        writeln!(list, "    ({name:?}, include_bytes!({path:?})),").expect("writing to a String cannot fail");
    }
    list.push(']');
    std::fs::write(out.join("built_in.rs"), list).expect("OUT_DIR is writable");
    let pins = workloads.join("pins.toml");
    let pins = std::fs::read_to_string(&pins).unwrap_or_default();
    std::fs::write(out.join("pins.toml"), pins).expect("OUT_DIR is writable");
}

fn writeln_cargo(key: &str, path: &Path) {
    println!("cargo:{key}={}", path.display());
}
