//! libFuzzer on one target: `FORGEPOOL_FUZZ_TARGET=NAME`; its seeds go to `FORGEPOOL_FUZZ_CORPUS=FOLDER` first.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use forge_fuzz::Target;

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FORGEPOOL_FUZZ_TARGET").expect("FORGEPOOL_FUZZ_TARGET names a target");
        forge_fuzz::target(&name).unwrap_or_else(|| panic!("no target '{name}'"))
    })
}

fn write_seeds() {
    let Some(folder) = std::env::var_os("FORGEPOOL_FUZZ_CORPUS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("the corpus has a folder");
    for (at, seed) in (target().seeds)().into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{at:02}")), seed).expect("a seed can be written");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |bytes: &[u8]| {
    target().check(bytes);
});
