//! `forgepool kernel new`: a project that builds, passes `check` and runs at once.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use forge_build::scaffold::{self, Language};

use crate::exit::Outcome;
use crate::screen;

/// Makes a kernel project that builds, passes `check` and runs at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kernel's name: `namespace/name`, or `name` alone
    #[arg(value_name = "NAME")]
    name: String,
    /// What to write it in
    #[arg(long, value_enum)]
    lang: Lang,
    /// The folder to make [default: the name without its namespace]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The project the kernel belongs to, where NAME does not say; `forgepool up` has one named `default`
    #[arg(long, value_name = "PROJECT", default_value = "default")]
    namespace: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lang {
    /// Rust, for wasm32-unknown-unknown
    Rust,
    /// C, freestanding, with clang
    C,
    /// WebAssembly text: needs no toolchain
    Wat,
}

/// Runs the command.
///
/// # Errors
/// A name no kernel can have, a folder that is not empty, or no place to write to.
pub fn run(args: &Args) -> Result<Outcome> {
    let label = if args.name.contains('/') { args.name.clone() } else { format!("{}/{}", args.namespace, args.name) };
    let language = match args.lang {
        Lang::Rust => Language::Rust,
        Lang::C => Language::C,
        Lang::Wat => Language::Wat,
    };
    let files = scaffold::files(&label, language)?;
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(label.rsplit('/').next().unwrap_or(&label)));
    scaffold::write(&folder, &files)?;
    let mut text = format!("{label} in {}\n\n", folder.display());
    let own = files.iter().filter(|(path, _)| !path.starts_with("forge-sdk"));
    own.for_each(|(path, _)| text.push_str(&format!("  {}\n", path.display())));
    if files.iter().any(|(path, _)| path.starts_with("forge-sdk")) {
        text.push_str("  forge-sdk/        the guest kit, part of the project\n");
    }
    let place = folder.display();
    text.push_str(&format!(
        "\nNext:\n  forgepool kernel check {place} --record\n  forgepool kernel push {place} --wait\n  forgepool run {place}/contract.json\n"
    ));
    screen::print(&text)?;
    Ok(Outcome::Done)
}
