//! `cargo xtask`: everything the project does to itself.

mod aarch64;
mod bench;
mod fuzz;
mod kernels;
mod simulate;
mod steps;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project automation", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check: format, lints, architecture, unit, property, golden, hostile and system tests, policy.
    Test(test::Args),
    /// Measure: the kernel against native and numpy, the platform against the kernel, units per second, latency.
    Bench(bench::Args),
    /// Run every decoder of foreign bytes under libFuzzer and print a table.
    Fuzz(fuzz::Args),
    /// Run the grid of adversaries at full size and print its table; minutes.
    Simulate(simulate::Args),
    /// Build the kernels in workloads/ and examples/kernels/, write their dist/ and pins.toml.
    Kernels(kernels::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Kernels(args) => kernels::run(&args),
    }
}
