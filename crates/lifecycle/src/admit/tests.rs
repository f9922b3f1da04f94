#![allow(clippy::unwrap_used)]
use super::*;

fn built(name: &str) -> Vec<u8> {
    let path = format!("{}/../../workloads/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

#[test]
fn the_built_kernels_are_admitted() {
    for name in ["mc@1", "noop@1"] {
        let bytes = built(name);
        let admitted = inspect(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(admitted.manifest.label(), name);
        assert_eq!(admitted.digest, Digest::of(&bytes));
    }
}
