//! Core modules, every exported function, two lists of arguments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use forge_contract::Digest;
use forge_golden::corpus;
use forge_golden::generated::{self, GROUP, RECORDED, Recorded, Tally};
use forge_sandbox::engine::Backend;
use forge_sandbox::module::{Call, Modules};

/// How many modules to run: whole groups.
fn asked() -> u64 {
    let text = std::env::var("FORGEPOOL_GENERATED_MODULES");
    let asked = text.map_or(RECORDED, |text| text.parse().expect("FORGEPOOL_GENERATED_MODULES is a number"));
    asked.max(1).next_multiple_of(GROUP)
}

/// Runs a group under every backend, compares each module, and gives the group's digest.
fn run(engines: &[Modules; 3], group: u64) -> (Tally, Digest) {
    let mut tally = Tally::default();
    let numbers = group * GROUP..(group + 1) * GROUP;
    let first: Vec<Vec<Call>> = numbers.clone().map(|number| generated::calls(&engines[0], number)).collect();
    for (number, calls) in numbers.zip(&first) {
        tally.count(calls);
        for (engine, backend) in engines[1..].iter().zip(&Backend::ALL[1..]) {
            let other = generated::calls(engine, number);
            if let Some((left, right)) = generated::disagreement(calls, &other) {
                panic!("module {number}: {:?} {left:?}, {backend:?} {right:?}", Backend::ALL[0]);
            }
        }
    }
    (tally, generated::digest(&first))
}

#[test]
fn backends_agree_in_bits_and_fuel() {
    let engines = Backend::ALL.map(|backend| Modules::new(backend).unwrap());
    let (groups, next) = (asked() / GROUP, AtomicU64::new(0));
    let done: Mutex<Vec<(u64, Tally, Digest)>> = Mutex::default();
    std::thread::scope(|scope| {
        let threads: usize = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let group = next.fetch_add(1, Ordering::Relaxed);
                    if group >= groups {
                        return;
                    }
                    let (tally, digest) = run(&engines, group);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((group, tally, digest));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(group, ..)| *group);
    let mut tally = Tally::default();
    done.iter().for_each(|(_, group, _)| tally.add(group));
    println!("{tally:?}");
    assert_eq!(tally.modules, asked());
    // A run in which little completes proves little.
    assert!(tally.completed * 2 > tally.calls, "{tally:?}");
    assert!(tally.no_verdict * 100 < tally.calls, "{tally:?}");

    let found: Vec<Digest> = done.iter().map(|(_, _, digest)| *digest).take((RECORDED / GROUP) as usize).collect();
    if corpus::recording() {
        corpus::write(generated::FILE, &Recorded { generator: version(), groups: found });
        return;
    }
    let recorded = generated::recorded();
    for (group, (found, recorded)) in found.iter().zip(&recorded.groups).enumerate() {
        assert_eq!(found, recorded, "group {group}: its modules end otherwise than recorded");
    }
}

/// The generator's version in the lock file.
fn version() -> String {
    let lock = include_str!("../../Cargo.lock");
    let (_, rest) = lock.split_once("name = \"wasm-smith\"\nversion = \"").expect("wasm-smith is locked");
    format!("wasm-smith {}", rest.split('"').next().unwrap())
}

#[test]
fn the_recorded_modules_are_of_the_generator_that_is_linked() {
    if !corpus::recording() {
        assert_eq!(generated::recorded().generator, version());
    }
}
