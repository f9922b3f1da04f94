//! `forgepool verify`: whether a bundle holds, without a network.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ed25519_dalek::VerifyingKey;
use forge_lifecycle::bundle::audit::{Check, Found, audit};
use forge_lifecycle::bundle::key::{Key, Signature};
use forge_lifecycle::bundle::{self, Bundle};
use serde_json::{Value, json};

use crate::exit::Outcome;
use crate::screen;
use crate::table::{Align, Table};

/// Checks an evidence bundle: every byte against its digest, the signature, and what it says against itself.
///
/// Needs no network and runs no kernel. Contract and manifest are planned again, fragments reduced again. Without
/// --hub-key the signature is checked against the key the bundle itself names, which proves nothing about who made it;
/// the answer says so, and the exit code is 0 all the same. A lie told alike everywhere is found by `forgepool replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle, as `forgepool evidence` wrote it
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The public key of the hub you expect: 43 characters, as `GET /` of a hub and its agents' settings name it
    #[arg(long, allow_hyphen_values = true, value_name = "KEY", env = "FORGEPOOL_HUB_KEY")]
    hub_key: Option<Key>,
    /// Print the checks as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read.
pub fn run(args: &Args) -> Result<Outcome> {
    let bytes = read(&args.bundle)?;
    let (head, checks) = match bundle::decode(&bytes) {
        Ok(read) => (describe(&read), audit(&read, args.hub_key.as_ref(), &is_signed)),
        Err(error) => (json!({}), vec![Check { name: "index", result: Found::Failed, detail: error.to_string() }]),
    };
    let ok = checks.iter().all(|check| check.result != Found::Failed);
    screen::print(&match args.json {
        true => screen::json(&as_json(args, head, &checks, ok)),
        false => as_table(args, &head, &checks, ok),
    })?;
    Ok(if ok { Outcome::Done } else { Outcome::Unsound })
}

/// The bytes of a bundle.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Whether a signature is a key's over a message (RFC 8032, strict).
#[must_use]
pub fn is_signed(key: &Key, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

fn describe(read: &Bundle<'_>) -> Value {
    json!({
        "job": read.index.job.to_string(),
        "root": read.index.root.to_string(),
        "signer": read.index.signature.public_key.to_string(),
    })
}

fn as_json(args: &Args, mut head: Value, checks: &[Check], ok: bool) -> Value {
    if let Some(members) = head.as_object_mut() {
        members.insert("ok".into(), ok.into());
        members.insert("signer_known".into(), args.hub_key.is_some().into());
        members.insert("checks".into(), json!(checks));
    }
    head
}

fn as_table(args: &Args, head: &Value, checks: &[Check], ok: bool) -> String {
    let mut table = Table::new(&[("check", Align::Left), ("", Align::Left), ("what was found", Align::Left)]);
    for check in checks {
        table.row([check.name.to_owned(), check.result.as_str().to_owned(), check.detail.clone()]);
    }
    let job = head.get("job").and_then(Value::as_str).map_or_else(String::new, |job| format!(" · job {job}"));
    let failed: Vec<&str> =
        checks.iter().filter(|check| check.result == Found::Failed).map(|check| check.name).collect();
    let verdict = match (ok, args.hub_key.is_some()) {
        (true, true) => "the bundle holds, and the hub whose key was given signed it\n".to_owned(),
        (true, false) => {
            "the bundle holds; WHO signed it was not checked: give the hub's key with --hub-key\n".to_owned()
        }
        (false, _) => format!("the bundle DOES NOT HOLD: {}\n", failed.join(", ")),
    };
    format!("{}{job}\n\n{}\n{verdict}", args.bundle.display(), table.render())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn a_key_may_begin_with_a_hyphen() {
        let command = Args::augment_args(Command::new("verify"));
        let key = format!("-{}", "A".repeat(42));
        let found = command.try_get_matches_from(["verify", "job.evidence", "--hub-key", &key]).unwrap();
        assert_eq!(found.get_one::<Key>("hub_key").unwrap().to_string(), key);
    }
}
