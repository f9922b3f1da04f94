//! `forgepool kernel build`: from a project to a component.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::exit::Outcome;
use crate::kernel::holding::{self, shown};
use crate::{number, screen};

/// Builds a kernel project into a component with its manifest inside, and prints digest and size.
///
/// Rust needs the target wasm32-unknown-unknown (or Debian's rustc-web), C needs clang and lld, WebAssembly text needs
/// nothing. A module that another toolchain made is taken from kernel.wasm.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project's folder [default: the one you stand in]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the component goes [default: DIR/target/NAME-VERSION.wasm]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// What keeps the project from building, with what to install or to change.
pub fn run(args: &Args) -> Result<Outcome> {
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from("."));
    let built = holding::build(&folder, args.output.as_deref())?;
    let toolchain = built.toolchain.as_deref().unwrap_or("");
    let bytes = built.component.len() as u64;
    if args.json {
        let value = json!({
            "file": built.file, "digest": built.digest.to_string(), "bytes": bytes, "toolchain": toolchain,
        });
        screen::print(&screen::json(&value))?;
    } else {
        screen::print(&format!(
            "file       {}\ndigest     {}\nsize       {} ({bytes} bytes)\ntoolchain  {toolchain}\n",
            shown(&built.file),
            built.digest,
            number::bytes(bytes),
        ))?;
    }
    Ok(Outcome::Done)
}
