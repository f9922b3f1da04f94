//! The seeded part of fuzzing: every target, always the same inputs.
//!
//! `FORGEPOOL_FUZZ_INPUTS=N` asks for another number of them, `FORGEPOOL_FUZZ_TARGET=NAME` for one target.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::time::Instant;

use forge_fuzz::mutate::Mutator;
use forge_fuzz::{TARGETS, Target};

fn run(target: &Target) {
    let asked = std::env::var("FORGEPOOL_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
    let (inputs, start) = (asked.unwrap_or(target.inputs), Instant::now());
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    let mut most = seeds.iter().map(|seed| target.check(seed)).max().unwrap_or(0);
    let mut mutator = Mutator::new(seeds, 0x666f_7267_6570_6f6f, target.longest);
    for _ in 0..inputs {
        let input = mutator.input();
        // The input that breaks a property is what one wants to see.
        let held = std::panic::catch_unwind(|| target.check(&input));
        match held {
            Ok(held) => most = most.max(held),
            Err(_) => panic!("{}: a property does not hold for {:?}", target.name, input.escape_ascii().to_string()),
        }
    }
    println!("{}: {inputs} inputs, {:.1} s, at most {most} bytes held", target.name, start.elapsed().as_secs_f64());
}

/// Every target, on as many threads as there are processors.
#[test]
fn every_decoder_of_foreign_bytes_keeps_its_properties() {
    let only = std::env::var("FORGEPOOL_FUZZ_TARGET").ok();
    let targets: Vec<Target> = TARGETS.into_iter().filter(|t| only.as_ref().is_none_or(|o| o == t.name)).collect();
    assert!(!targets.is_empty(), "no target of this name");
    std::thread::scope(|scope| {
        for target in &targets {
            scope.spawn(move || run(target));
        }
    });
}

#[test]
fn memory_is_counted() {
    let held = forge_fuzz::memory::peak_of(|| drop(vec![0u8; 5_000_000]));
    assert!((5_000_000..5_100_000).contains(&held), "{held}");
}
