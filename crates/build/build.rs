//! Embeds the guest kits, so that `forgepool kernel new` makes projects that build far from this checkout.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    for folder in ["sdk-guest/src", "wit"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        collect(&root, &root.join(folder), &mut files);
    }
    files.push("sdk-guest/Cargo.toml".into());
    files.sort();
    let mut list = String::from("&[\n");
    for name in &files {
        let path = root.join(name).canonicalize().expect("a file just listed has a path");
        println!("cargo::rerun-if-changed={}", path.display());
        writeln!(list, "    ({name:?}, include_str!({path:?})),").expect("writing to a String cannot fail");
    }
    list.push(']');
    std::fs::write(out.join("kit.rs"), list).expect("OUT_DIR is writable");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("the kit lies in the checkout").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(name) = path.strip_prefix(root) {
            files.push(name.to_string_lossy().into_owned());
        }
    }
}
