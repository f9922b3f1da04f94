//! The committed components: pinned, admitted, without imports, and true to their manifests' own goldens.

use forge_contract::Digest;
use forge_lifecycle::admit;
use forge_sandbox::engine::Backend;
use forge_sandbox::local;

use crate::dist;

#[test]
fn every_component_has_the_digest_it_is_pinned_to() {
    for label in dist::KERNELS {
        let bytes = dist::component(label);
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), pinned(label), "{label}");
    }
    // And no component lies there unpinned.
    for file in std::fs::read_dir(dist::repository().join("workloads/dist")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if let Some(label) = name.strip_suffix(".wasm") {
            assert!(dist::KERNELS.contains(&label), "{name} is in no test");
        }
    }
}

#[test]
fn every_component_is_admitted_under_its_own_name() {
    for label in dist::KERNELS {
        let bytes = dist::component(label);
        let admitted = admit::inspect(&bytes).unwrap();
        assert_eq!(admitted.manifest.label(), label);
        assert_eq!((admitted.digest, admitted.bytes), (Digest::of(&bytes), bytes.len() as u64));
    }
}

#[test]
fn components_import_nothing_but_their_inputs() {
    for label in dist::KERNELS {
        let allowed: &[&str] = if label == "gemm@1" { &["forgepool:kernel/inputs@1.0.0"] } else { &[] };
        assert_eq!(imports(&dist::component(label)), allowed, "{label}");
    }
}

/// Names of the component's own imports (section 10 of the component binary format, outermost level).
fn imports(component: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            wasmparser::Payload::ModuleSection { .. } | wasmparser::Payload::ComponentSection { .. } => depth += 1,
            wasmparser::Payload::End(_) => depth -= 1,
            wasmparser::Payload::ComponentImportSection(section) if depth == 0 => {
                names.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
            }
            _ => (),
        }
    }
    names
}

#[test]
fn a_manifests_own_goldens_hold() {
    for label in dist::KERNELS {
        let held = dist::kernel(label);
        let compiled = dist::compiled(label, Backend::CraneliftSpeed);
        for (profile, spec) in &held.manifest.profiles {
            assert!(!spec.goldens.is_empty(), "{label} {profile} has no golden");
            for golden in &spec.goldens {
                let plan = dist::planned(&dist::contract(label, profile, &golden.args, &golden.seed), &held);
                let stage = plan.stages.iter().position(|s| s.name == golden.stage).unwrap();
                let mut task = dist::task_of(&plan, u32::try_from(stage).unwrap(), golden.unit);
                let inputs = dist::give(&mut task, golden.reads());
                let run = local::run_unit(&compiled, &task, golden.unit, &inputs).unwrap();
                assert_eq!(
                    (run.fragment.digest(), run.fuel),
                    (golden.digest, golden.fuel),
                    "{label} {profile} {}",
                    golden.unit
                );
            }
        }
    }
}

/// The digest and size that `workloads/pins.toml` gives a kernel.
fn pinned(label: &str) -> (Digest, u64) {
    #[derive(serde::Deserialize)]
    struct Pin {
        name: String,
        version: u32,
        digest: Digest,
        bytes: u64,
    }
    #[derive(serde::Deserialize)]
    struct Pins {
        kernel: Vec<Pin>,
    }
    let text = std::fs::read_to_string(dist::repository().join("workloads/pins.toml")).unwrap();
    let pins: Pins = toml::from_str(&text).unwrap();
    let mut of_label = pins.kernel.iter().filter(|pin| format!("{}@{}", pin.name, pin.version) == label);
    let pin = of_label.next().unwrap_or_else(|| panic!("{label} is not pinned"));
    assert!(of_label.next().is_none(), "{label} is pinned twice");
    (pin.digest, pin.bytes)
}
