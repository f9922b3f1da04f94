//! Named commands, run one after the other with their time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().and_then(Path::parent).context("xtask lies two folders below the root")?;
    Ok(root.to_path_buf())
}

/// Where cargo builds.
pub fn target_dir() -> Result<PathBuf> {
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), Into::into))
}

/// A run of steps; remembers what failed and how long each took.
#[derive(Default)]
pub struct Steps {
    done: Vec<(String, f64, bool)>,
    keep_going: bool,
}

impl Steps {
    /// Steps that stop at the first failure, or go on and fail at the end.
    pub fn new(keep_going: bool) -> Self {
        Self { done: Vec::new(), keep_going }
    }

    /// Runs a command from the root.
    pub fn run(&mut self, name: &str, program: &str, args: &[&str]) -> Result<()> {
        self.run_with(name, program, args, &[])
    }

    /// Runs a command from the root with more environment.
    pub fn run_with(&mut self, name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let shown = format!("{program} {}", args.join(" "));
        say(&format!("\n== {name}: {shown}"));
        let start = Instant::now();
        let status = Command::new(program)
            .args(args)
            .envs(env.iter().copied())
            .current_dir(root()?)
            .status()
            .with_context(|| format!("{program} cannot be started; is it installed?"))?;
        self.done.push((name.to_owned(), start.elapsed().as_secs_f64(), status.success()));
        if !status.success() && !self.keep_going {
            self.print();
            bail!("step '{name}' failed: {shown}");
        }
        Ok(())
    }

    /// Prints the table; an error where a step failed.
    pub fn finish(self) -> Result<()> {
        self.print();
        let failed: Vec<&str> = self.done.iter().filter(|s| !s.2).map(|s| s.0.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }

    fn print(&self) {
        say("\nstep                          seconds  result");
        for (name, seconds, good) in &self.done {
            say(&format!("{name:<28} {seconds:>8.1}  {}", if *good { "ok" } else { "FAILED" }));
        }
    }
}

/// Prints a line for the person at the terminal.
#[expect(clippy::print_stdout, reason = "xtask talks to a person")]
pub fn say(line: &str) {
    println!("{line}");
}

/// Whether a program can be started.
pub fn has(program: &str, probe: &[&str]) -> bool {
    Command::new(program).args(probe).output().is_ok_and(|o| o.status.success())
}
