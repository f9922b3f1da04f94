//! `forgepool kernel`: what an author of kernels does, from an empty folder to a version on a hub.

mod build;
mod check;
mod create;
mod holding;
mod list;
mod push;
mod show;
mod state;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Outcome;

/// Makes, builds, checks and publishes kernels (docs/kernel-authors.md).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(create::Args),
    Build(build::Args),
    Check(check::Args),
    Push(push::Args),
    List(list::Args),
    Show(show::Args),
    Yank(state::YankArgs),
    Deprecate(state::DeprecateArgs),
}

/// Runs the command.
///
/// # Errors
/// What the subcommand says.
pub async fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::New(args) => create::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Push(args) => push::run(args).await,
        Command::List(args) => list::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Yank(args) => state::yank(args).await,
        Command::Deprecate(args) => state::deprecate(args).await,
    }
}
