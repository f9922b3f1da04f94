//! `forgepool backup`: everything a hub keeps, into a directory.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::exit::Outcome;
use crate::{number, offline, screen};

/// Copies everything a hub keeps into a new directory, while the hub runs or not.
///
/// Run it on the hub's machine as the hub's user: a backup holds the hub's private key, which is never sent over a
/// network. What was acknowledged before it began is in it. It is checked at its end, byte by byte, and appears whole or
/// not at all. `forgepool restore` makes a data directory of it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to make; with --check, the one to look at
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The hub's data directory [default: the platform's data directory]
    #[arg(long, env = "FORGEPOOL_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Share the files of large objects with the hub instead of copying them: quick, and no protection against a disk
    /// that goes bad
    #[arg(long)]
    link: bool,
    /// Take no backup: check every byte of the one in DIR
    #[arg(long, conflicts_with = "link")]
    check: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The directories, or what is in them.
pub async fn run(args: Args) -> Result<Outcome> {
    let done = match args.check {
        true => offline::check(&args.directory).map(|manifest| (manifest, "checked")),
        false => {
            let data = args.data.clone().or_else(offline::hub_data_default);
            let data = data.context("no data directory is known here; give the hub's with --data")?;
            offline::take(&data, &args.directory, args.link).await.map(|taken| (taken.manifest, "taken"))
        }
    };
    let (manifest, what) = match done {
        Ok(done) => done,
        Err(error) if offline::is_unsound(&error) => {
            screen::remark(&format!("error: {error:#}\n"));
            return Ok(Outcome::Unsound);
        }
        Err(error) => return Err(error),
    };
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let directory = args.directory.display();
    screen::print(&match args.json {
        true => screen::json(&json!({
            "directory": directory.to_string(),
            "files": manifest.files.len(),
            "bytes": bytes,
            "schema": manifest.schema,
            "audit_rows": manifest.audit.seq,
            "at_ms": manifest.at_ms,
        })),
        false => format!(
            "{directory}: {what}, {} in {} files; schema {}, {} rows of the audit log\n  it holds the hub's private key: keep \
             it as you keep the hub\n",
            number::bytes(bytes),
            number::count(manifest.files.len() as u64),
            manifest.schema,
            number::count(manifest.audit.seq),
        ),
    })?;
    Ok(Outcome::Done)
}
