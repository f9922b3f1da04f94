//! Whether a log is whole.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::trail::Head;
use forge_lifecycle::trail::text::{Checker, LINE_BYTES_MAX, Opening};
use forge_lifecycle::trail::verify::Findings;
use serde_json::{Value, json};

use crate::exit::Outcome;
use crate::verify::is_signed;
use crate::{number, offline, screen};

/// What to check, and against what.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An export, a hub's data directory, or a backup
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The public key of the hub you expect: 43 characters, as `GET /` of a hub names it
    #[arg(long, allow_hyphen_values = true, value_name = "KEY", env = "FORGEPOOL_HUB_KEY")]
    hub_key: Option<Key>,
    /// A head kept from earlier, as `forgepool audit head` prints it: its rows must still be there
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Something cannot be read.
pub async fn run(args: Args) -> Result<Outcome> {
    let kept = args.head.as_deref().map(read_head).transpose()?;
    let (found, opening) = if args.path.is_dir() {
        (offline::audit(&args.path, args.hub_key, kept, &is_signed).await?, None)
    } else {
        export(&args.path, Checker::new(args.hub_key, kept, &is_signed))?
    };
    let scope = opening.map_or_else(|| "all".to_owned(), |opening| opening.scope);
    screen::print(&match args.json {
        true => screen::json(&as_json(&args, &found, &scope)),
        false => as_text(&args, &found, &scope),
    })?;
    Ok(if found.faults.is_empty() { Outcome::Done } else { Outcome::Unsound })
}

fn read_head(path: &Path) -> Result<Head> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no head of an audit log", path.display()))
}

fn export(path: &Path, checker: Checker<'_>) -> Result<(Findings, Option<Opening>)> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = std::fs::File::open(path).with_context(cannot)?;
    let mut lines = Lines::new(checker);
    let mut piece = vec![0; 64 << 10];
    loop {
        let bytes = file.read(&mut piece).with_context(cannot)?;
        if bytes == 0 {
            return Ok(lines.end());
        }
        lines.push(piece.get(..bytes).unwrap_or_default());
    }
}

/// Lines out of pieces.
pub(super) struct Lines<'a> {
    checker: Checker<'a>,
    pending: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(checker: Checker<'a>) -> Self {
        Self { checker, pending: Vec::new() }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            // One byte more than a line may have is enough to refuse it.
            let room = (LINE_BYTES_MAX + 2).saturating_sub(self.pending.len());
            self.pending.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                self.line(line.strip_suffix(b"\n").unwrap_or(&line));
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        // What is no text is no line of an export either.
        self.checker.line(std::str::from_utf8(line).unwrap_or("\u{fffd}"));
    }

    pub(super) fn end(mut self) -> (Findings, Option<Opening>) {
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.line(&rest);
            self.checker.cut_off();
        }
        self.checker.end()
    }
}

fn as_json(args: &Args, found: &Findings, scope: &str) -> Value {
    json!({
        "ok": found.faults.is_empty(),
        "scope": scope,
        "signer_known": args.hub_key.is_some(),
        "rows": found.rows,
        "hidden": found.hidden,
        "heads": found.heads,
        "signed_up_to": found.signed,
        "last": found.tip.seq,
        "link": found.tip.link.to_string(),
        "faults": found.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn as_text(args: &Args, found: &Findings, scope: &str) -> String {
    let path = args.path.display();
    let mut text = format!(
        "{path}: {} rows ({} shown to {scope}), {} signed heads\n",
        number::count(found.rows),
        number::count(found.rows - found.hidden),
        number::count(found.heads),
    );
    for fault in &found.faults {
        text += &format!("  {fault}\n");
    }
    let open = found.tip.seq.saturating_sub(found.signed);
    text += &match (found.faults.is_empty(), args.hub_key.is_some()) {
        (false, _) => "the log DOES NOT HOLD\n".to_owned(),
        (true, true) => format!("the log holds, and the hub whose key was given signed row {}\n", found.signed),
        (true, false) => format!(
            "the log holds up to row {}; WHO signed it was not checked: give the hub's key with --hub-key\n",
            found.signed
        ),
    };
    if found.faults.is_empty() && open > 0 {
        text += &format!("the last {open} rows are not signed yet\n");
    }
    text
}
