//! The example kernels: pinned, without imports, and true to their own known answers on every backend.

use forge_contract::Digest;
use forge_sandbox::engine::Backend;
use forge_sandbox::{Inputs, local};
use forge_tests::binary::root;
use forge_tests::examples::{NAMES, component, kernel, planned, task};
use serde::Deserialize;

#[derive(Deserialize)]
struct Pins {
    kernel: Vec<Pin>,
}

#[derive(Deserialize)]
struct Pin {
    name: String,
    version: u32,
    digest: Digest,
    bytes: u64,
    toolchain: String,
}

fn pins() -> Vec<Pin> {
    let text = std::fs::read_to_string(root().join("examples/kernels/pins.toml")).unwrap();
    let pins: Pins = toml::from_str(&text).unwrap();
    pins.kernel
}

#[test]
fn every_example_is_pinned_and_admitted_under_its_name() {
    let pins = pins();
    assert_eq!(pins.len(), NAMES.len());
    for (pin, name) in pins.iter().zip(NAMES) {
        let (bytes, held) = (component(name), kernel(name));
        assert_eq!((pin.name.as_str(), pin.version), (format!("default/{name}").as_str(), 1));
        assert_eq!(
            (held.digest, held.bytes, held.manifest.label()),
            (pin.digest, pin.bytes, format!("{}@1", pin.name))
        );
        assert_eq!(Digest::of(&bytes), pin.digest);
        assert!(!forge_build::foreign_imports(&bytes).unwrap().iter().any(|_| true), "{name} imports something");
    }
}

#[test]
fn every_example_gives_its_known_answers_on_every_backend() {
    for name in NAMES {
        let held = kernel(name);
        for backend in Backend::ALL {
            let compiled = local::compile(&component(name), backend).unwrap();
            for (profile, spec) in &held.manifest.profiles {
                assert!(spec.goldens.len() >= 2, "{name} {profile} has known answers");
                for golden in &spec.goldens {
                    let plan = planned(&held, profile, &golden.args, &golden.seed);
                    let task = task(&plan, &golden.stage, golden.unit);
                    let run = local::run_unit(&compiled, &task, golden.unit, &Inputs::none()).unwrap();
                    let found = (run.fragment.digest(), run.fuel);
                    assert_eq!(found, (golden.digest, golden.fuel), "{name} {profile} {backend:?}");
                }
            }
        }
    }
}

/// Where the pinned toolchain is, the source gives the pinned bytes, wherever it lies. Elsewhere it says so.
#[test]
#[allow(clippy::print_stderr, reason = "what is passed over is said")]
fn sources_give_the_pinned_bytes() {
    for (pin, name) in pins().iter().zip(NAMES) {
        // Rust takes a minute and the network: `cargo xtask test --long` rebuilds it.
        if name == "pricer" {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(root().join("examples/kernels").join(name)).unwrap().flatten() {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        match forge_build::build(folder.path()) {
            Ok(built) if built.toolchain == pin.toolchain => assert_eq!(built.digest, pin.digest, "{name}"),
            Ok(built) => eprintln!("{name} is not compared: {} here, {} pinned", built.toolchain, pin.toolchain),
            Err(forge_build::BuildError::Toolchain(error)) => eprintln!("{name} is not compared: {error}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}
