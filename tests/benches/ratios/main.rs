//! Every speed the project claims, each as a ratio measured in one run. Start it with `cargo xtask bench`.
//!
//! Arguments: `--rounds N` (5), `--iterations N` (100,000,000), `--shards N` (100,000), `--seconds N` (60),
//! `--only kernel|platform|scale|load|sessions|stragglers`, `--json FILE`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod figures;
mod kernel;
mod load;
mod platform;
mod products;
mod scale;
mod sessions;
mod stragglers;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned();
    let number = |name: &str, default: u64| value(name).and_then(|v| v.parse().ok()).unwrap_or(default);
    let rounds = number("--rounds", 5) as usize;
    let only = value("--only");
    let mut report = figures::Report::default();
    println!("{:<34} {:>10} {:<8} {:<16} how", "figure", "value", "unit", "target");
    let wanted = |group: &str| only.as_deref().is_none_or(|only| only == group);
    if wanted("kernel") {
        kernel::measure(&mut report, rounds);
        products::measure(&mut report, rounds);
    }
    if wanted("platform") {
        platform::measure(&mut report, rounds, number("--iterations", 100_000_000));
    }
    if wanted("scale") {
        scale::measure(&mut report, number("--shards", 100_000));
    }
    if wanted("load") {
        load::measure(&mut report, number("--seconds", 60));
    }
    if wanted("sessions") {
        sessions::measure(&mut report);
    }
    if wanted("stragglers") {
        stragglers::measure(&mut report);
    }
    if let Some(file) = value("--json") {
        std::fs::write(file, report.json().to_string()).unwrap();
    }
}
