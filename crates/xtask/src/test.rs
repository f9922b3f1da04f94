//! The one test command.

use anyhow::{Result, bail};

use crate::aarch64;
use crate::simulate;
use crate::steps::{Steps, has, say, target_dir};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Also: rebuild the kernels and compare their digests (needs the Wasm toolchain), faults five times as long, a hub
    /// killed 200 times under load, ten times as many generated modules, 100,000 inputs per decoder under libFuzzer, the grid of adversaries at full size,
    /// the corpus on emulated aarch64.
    #[arg(long)]
    long: bool,
    /// Go on after a failed step.
    #[arg(long)]
    keep_going: bool,
}

const CARGO: &str = "cargo";
/// The guests' workspace; the guest kit is a member of it.
const GUESTS: &str = "workloads/Cargo.toml";

/// Runs every check; stops at the first that fails unless asked to go on.
pub fn run(args: &Args) -> Result<()> {
    require()?;
    if args.long {
        aarch64::require()?;
    }
    let mut steps = Steps::new(args.keep_going);
    steps.run("format", CARGO, &["fmt", "--all", "--check"])?;
    steps.run("format of guests", CARGO, &["fmt", "--manifest-path", GUESTS, "--all", "--check"])?;
    // The walls first: quick, and a wrong import explains many later failures.
    // Always the whole workspace: another selection unifies features otherwise and builds the engine once more.
    steps.run("architecture and policy", CARGO, &["test", "--locked", "--workspace", "--test", "architecture"])?;
    if has(CARGO, &["deny", "--version"]) {
        steps.run("cargo deny", CARGO, &["deny", "--offline", "check", "bans", "licenses", "sources"])?;
    } else {
        say(
            "cargo-deny is not installed (`cargo install --locked cargo-deny`): the same rules ran as tests/architecture.rs",
        );
    }
    steps.run("lints", CARGO, &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    steps.run(
        "lints of guests",
        CARGO,
        &["clippy", "--locked", "--manifest-path", GUESTS, "--all-targets", "--", "-D", "warnings"],
    )?;
    steps.run("programs", CARGO, &["build", "--locked", "--workspace", "--bins"])?;
    let program = program()?;
    let program = [("FORGEPOOL_BIN", program.as_str())];
    // All of them, whatever fails: a run takes long, and one failure may explain another.
    steps.run_with("tests", CARGO, &["test", "--locked", "--workspace", "--no-fail-fast"], &program)?;
    steps.run("tests of guests", CARGO, &["test", "--locked", "--manifest-path", GUESTS])?;
    if args.long {
        let longer = [program[0], ("FORGEPOOL_FAULTS", "5")];
        steps.run_with("faults, longer", CARGO, &["test", "--locked", "--workspace", "--test", "faults"], &longer)?;
        // By the name of the test: whatever else the file holds ran before.
        let deaths = [program[0], ("FORGEPOOL_KILLS", "200")];
        let random = ["test", "--locked", "--workspace", "--test", "system", "kills", "--", "--nocapture"];
        steps.run_with("200 deaths of a hub", CARGO, &random, &deaths)?;
        steps.run("kernels rebuild alike", CARGO, &["xtask", "kernels", "--check"])?;
        let more = [("FORGEPOOL_GENERATED_MODULES", "20000")];
        let differential = ["test", "--locked", "--workspace", "--test", "differential", "--", "--nocapture"];
        steps.run_with("generated modules", CARGO, &differential, &more)?;
        steps.run("decoders under libFuzzer", CARGO, &["xtask", "fuzz", "--inputs", "100000"])?;
        simulate::within(&mut steps, &simulate::Args::default())?;
        aarch64::run(&mut steps)?;
    }
    steps.finish()
}

/// The program that system tests start, as the workspace build made it.
fn program() -> Result<String> {
    Ok(target_dir()?.join("debug/forgepool").to_string_lossy().into_owned())
}

/// Says exactly what is missing before an hour of building finds out.
fn require() -> Result<()> {
    let needs: [(&str, &[&str], &str); 5] = [
        ("cc", &["--version"], "a C compiler (Debian: apt-get install gcc libc6-dev)"),
        ("curl", &["--version"], "curl, which runs the printed command (Debian: apt-get install curl)"),
        ("git", &["--version"], "git (Debian: apt-get install git)"),
        (CARGO, &["fmt", "--version"], "rustfmt (rustup component add rustfmt)"),
        (CARGO, &["clippy", "--version"], "clippy (rustup component add clippy)"),
    ];
    let missing: Vec<&str> = needs.iter().filter(|(program, probe, _)| !has(program, probe)).map(|n| n.2).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing: {}", missing.join("; "))
}
