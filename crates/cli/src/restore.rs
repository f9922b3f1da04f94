//! `forgepool restore`: a data directory out of a backup.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::exit::Outcome;
use crate::{number, offline, screen};

/// Makes a hub's data directory of a backup.
///
/// Every byte is checked against the backup's manifest; one that differs is named, and nothing is left behind. Two hubs
/// with one key confuse their agents: the one that was backed up must not run any more.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The data directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The directories.
pub fn run(args: &Args) -> Result<Outcome> {
    let restored = match offline::restore(&args.directory, &args.data) {
        Ok(restored) => restored,
        Err(error) if offline::is_unsound(&error) => {
            screen::remark(&format!("error: {error:#}\n"));
            return Ok(Outcome::Unsound);
        }
        Err(error) => return Err(error),
    };
    let data = args.data.display();
    screen::print(&match args.json {
        true => screen::json(&json!({
            "data": data.to_string(),
            "files": restored.files,
            "bytes": restored.bytes,
        })),
        false => format!(
            "{data}: {} in {} files\n  start the hub with: forgepool hub --data {data}\n",
            number::bytes(restored.bytes),
            number::count(restored.files),
        ),
    })?;
    Ok(Outcome::Done)
}
