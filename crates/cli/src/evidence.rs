//! `forgepool evidence`: a job's evidence into a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forge_lifecycle::bundle;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::client::Client;
use crate::exit::Outcome;
use crate::target::TargetArgs;
use crate::{number, screen};

/// Fetches the evidence of a job that is over: one file, signed by the hub.
///
/// `forgepool verify FILE` checks it without a network, `forgepool replay FILE` repeats the job on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's identifier
    #[arg(value_name = "JOB")]
    job: String,
    /// Where to write it; JOB.evidence where not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out the kernel's component and what the job read; root and signature are the same
    #[arg(long)]
    slim: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, the hub's refusal, or the file.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let path = args.output.unwrap_or_else(|| PathBuf::from(format!("{}.evidence", args.job)));
    let query = if args.slim { "?slim=true" } else { "" };
    download(&client, &format!("/api/v0/jobs/{}/evidence{query}", args.job), &path).await?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let read = bundle::decode(&bytes).with_context(|| format!("{} came damaged; fetch it again", path.display()))?;
    if let Some(entry) = read.changed().first() {
        bail!("{} came damaged in leaf '{}'; fetch it again", path.display(), entry.name);
    }
    let (root, signer) = (read.index.root, read.index.signature.public_key);
    screen::print(&match args.json {
        true => screen::json(&json!({
            "file": path.display().to_string(),
            "bytes": bytes.len(),
            "job": read.index.job.to_string(),
            "root": root.to_string(),
            "signer": signer.to_string(),
            "leaves": read.index.leaves.len(),
        })),
        false => format!(
            "{}: {} in {} leaves\n  root      {root}\n  signed by {signer}\n",
            path.display(),
            number::bytes(bytes.len() as u64),
            read.index.leaves.len()
        ),
    })?;
    Ok(Outcome::Done)
}

/// Writes an answer to a file that appears once it is whole.
async fn download(client: &Client, path: &str, file: &Path) -> Result<()> {
    let mut answer = client.open(path).await?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", file.display());
    // As any file of this user's: the mask takes off what it takes off.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut draft = tempfile::Builder::new().permissions(mode).tempfile_in(parent).with_context(cannot)?;
    while let Some(chunk) = answer.next().await {
        draft.write_all(&chunk?).with_context(cannot)?;
    }
    draft.as_file().sync_all().with_context(cannot)?;
    draft.persist(file).with_context(cannot)?;
    Ok(())
}
