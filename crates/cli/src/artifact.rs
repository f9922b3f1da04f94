//! `forgepool artifact`: one artifact of a job into a file.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forge_contract::Digest;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::target::TargetArgs;
use crate::{number, screen};

/// Fetches an artifact of a job, such as the matrix `c_npy` of a product, and verifies its digest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's identifier
    #[arg(value_name = "ID")]
    job: String,
    /// The artifact's name; `forgepool job ID --show artifacts` lists them
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to write it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, no such job or artifact, other bytes than the job's record names, a file that cannot be written.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let artifacts = format!("/api/v0/jobs/{}/artifacts", args.job);
    let list = client.read(&artifacts).await?;
    let (digest, bytes) = find(&list, &args.name)?;
    let path = format!("{artifacts}/{}", args.name);
    fetch(&client, &path, &digest, &args.output).await?;
    let file = args.output.display();
    if args.json {
        let written = json!({"file": file.to_string(), "digest": digest.to_string(), "bytes": bytes});
        screen::print(&screen::json(&written))?;
    } else {
        screen::remark(&format!("{file}: {}, digest verified\n", number::bytes(bytes)));
    }
    Ok(Outcome::Done)
}

/// Digest and size of the artifact of this name.
fn find(list: &Value, name: &str) -> Result<(Digest, u64)> {
    let items = || list.get("items").and_then(Value::as_array).into_iter().flatten();
    let name_of = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    let Some(item) = items().find(|item| name_of(item).as_deref() == Some(name)) else {
        let names: Vec<String> = items().filter_map(name_of).collect();
        let names = if names.is_empty() { "none (is it over?)".to_owned() } else { names.join(", ") };
        bail!("the job has no artifact '{name}'; it has: {names}");
    };
    let digest = item.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
    let digest = digest.context("the hub lists the artifact without its digest")?;
    Ok((digest, item.get("bytes").and_then(Value::as_u64).unwrap_or(0)))
}

/// Writes beside the file first; it has its name once the digest is right.
async fn fetch(client: &Client, path: &str, digest: &Digest, output: &Path) -> Result<()> {
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    let beside = output.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), digest.short()));
    let unwritten = || format!("cannot write {}", beside.display());
    let mut file = File::create(&beside).with_context(unwritten)?;
    let mut hasher = blake3::Hasher::new();
    let fetched = client.fetch(path, |piece| {
        hasher.update(piece);
        file.write_all(piece)
    });
    let fetched = fetched.await.map_err(anyhow::Error::from).and_then(|written| written.with_context(unwritten));
    let found = Digest::from_bytes(*hasher.finalize().as_bytes());
    if fetched.is_err() || found != *digest {
        drop(std::fs::remove_file(&beside));
        fetched?;
        bail!("what came has the digest {found}, the job's record says {digest}; it was thrown away");
    }
    file.sync_all().with_context(unwritten)?;
    std::fs::rename(&beside, output).with_context(|| format!("cannot write {}", output.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn artifacts_are_found_by_name_or_named() {
        let digest = Digest::of(b"x");
        let list =
            json!({"items": [{"name": "c_npy", "digest": digest.to_string(), "bytes": 7}, {"name": "plan_json"}]});
        assert_eq!(find(&list, "c_npy").unwrap(), (digest, 7));
        let missing = find(&list, "d_npy").unwrap_err().to_string();
        assert!(missing.contains("'d_npy'") && missing.contains("c_npy, plan_json"), "{missing}");
        assert!(find(&json!({"items": []}), "c_npy").unwrap_err().to_string().contains("is it over?"));
    }
}
