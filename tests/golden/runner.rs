//! Checks the recorded answers on the processor this was built for, and prints a line per set.
//!
//! `golden-runner [speed|none|pulley]...`: the backends, all where none is named. Ends with 1 where an answer differs.
#![allow(clippy::print_stdout, clippy::panic, reason = "it reports to a person")]

use std::process::ExitCode;
use std::time::Instant;

use forge_golden::{corpus, dist, generated};
use forge_sandbox::engine::Backend;

fn main() -> ExitCode {
    let mut backends: Vec<Backend> = std::env::args().skip(1).map(|word| backend(&word)).collect();
    if backends.is_empty() {
        backends.extend(Backend::ALL);
    }
    println!("processor {}, engine profile {}", std::env::consts::ARCH, forge_sandbox::engine_profile());
    let mut wrong = 0;
    for backend in backends {
        for label in dist::KERNELS {
            let what = format!("{label}, {} units", corpus::entries(label).len());
            wrong += report(&what, backend, || corpus::differences(label, backend));
        }
        let what = format!("generated, {} modules", generated::recorded().groups.len() as u64 * generated::GROUP);
        wrong += report(&what, backend, || generated::differences(backend));
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn backend(word: &str) -> Backend {
    match word {
        "speed" => Backend::CraneliftSpeed,
        "none" => Backend::CraneliftNone,
        "pulley" => Backend::Pulley,
        other => panic!("no backend '{other}': speed, none or pulley"),
    }
}

/// Prints what a check found; the number of differences.
fn report(what: &str, backend: Backend, check: impl FnOnce() -> Vec<String>) -> usize {
    let start = Instant::now();
    let found = check();
    let verdict = if found.is_empty() { "equal" } else { "DIFFERENT" };
    println!("{:<16} {what:<28} {verdict:<10} {:>7.1} s", format!("{backend:?}"), start.elapsed().as_secs_f64());
    found.iter().for_each(|line| println!("  {line}"));
    found.len()
}
