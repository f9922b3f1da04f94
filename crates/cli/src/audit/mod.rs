//! `forgepool audit`: who changed what, and whether the record of it is whole.

mod check;
mod list;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use forge_lifecycle::trail::text;
use futures_util::StreamExt as _;

use crate::client::Client;
use crate::exit::Outcome;
use crate::screen;
use crate::target::TargetArgs;

/// Reads a hub's audit log, takes it out as a file, and checks such a file or a data directory without a network.
///
/// The log has one row for every change by key, each chained to the one before it, and the hub signs where the chain
/// stands. A key with the scope `admin` sees every row; others see those of their project, and of the rest only digests,
/// so that what they take out can be checked as a whole.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(subcommand)]
    word: Word,
}

const AFTER: &str = "Examples:
  forgepool audit list --action 'POST /api/v0/jobs/{id}/cancel'
  forgepool audit head > head.json                               keep it elsewhere: it holds the hub to every row so far
  forgepool audit export -o audit.jsonl
  forgepool audit verify audit.jsonl --hub-key KEY --head head.json
  forgepool audit verify /var/lib/forgepool                      on the hub's own machine, running or not";

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Rows of the log, newest first
    List(list::Args),
    /// Where the log stands, signed by the hub; JSON
    Head(Head),
    /// The whole log into a file
    Export(Export),
    /// Whether an export, a data directory or a backup holds what the hub wrote: names what was changed, dropped,
    /// reordered or cut off
    Verify(check::Args),
}

#[derive(Debug, clap::Args)]
struct Head {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct Export {
    /// Where to write it; audit.jsonl where not given
    #[arg(long, short, value_name = "FILE", default_value = "audit.jsonl")]
    output: PathBuf,
    /// The first row
    #[arg(long, default_value_t = 1, value_name = "SEQ")]
    from: u64,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, the hub's refusal, or a file.
pub async fn run(args: Args) -> Result<Outcome> {
    match args.word {
        Word::List(args) => list::run(args).await,
        Word::Verify(args) => check::run(args).await,
        Word::Head(args) => {
            let head = Client::new(args.target.resolve()?)?.read("/api/v0/audit/head").await?;
            screen::print(&screen::json(&head))?;
            Ok(Outcome::Done)
        }
        Word::Export(args) => export(args).await,
    }
}

/// Writes the export to a file that appears once it is whole and holds.
async fn export(args: Export) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let path = format!("/api/v0/audit/export?from={}", args.from);
    let mut answer = client.open(&path).await?;
    let file = &args.output;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let cannot = || format!("cannot write {}", file.display());
    let mut draft = tempfile::Builder::new().tempfile_in(parent).with_context(cannot)?;
    let checker = text::Checker::new(None, None, &crate::verify::is_signed);
    let mut lines = check::Lines::new(checker);
    while let Some(piece) = answer.next().await {
        let piece = piece?;
        lines.push(&piece);
        draft.write_all(&piece).with_context(cannot)?;
    }
    let (found, _) = lines.end();
    if let Some(fault) = found.faults.first() {
        anyhow::bail!("the export came damaged: {fault}; fetch it again");
    }
    draft.as_file().sync_all().with_context(cannot)?;
    draft.persist(file).with_context(cannot)?;
    let shown = found.rows - found.hidden;
    screen::print(&format!("{}: {} rows, {shown} of them shown\n", file.display(), found.rows))?;
    Ok(Outcome::Done)
}
