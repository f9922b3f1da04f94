//! Commands about money: usage, the ledger, payouts.

pub mod ledger;
pub mod payouts;
pub mod usage;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::client::Client;
use crate::exit::Outcome;
use crate::{number, screen};

/// Where a whole table is written to instead of being shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Export {
    /// Write everything as CSV to this file instead of showing a page
    #[arg(long, value_name = "FILE", conflicts_with_all = ["parquet", "json"])]
    csv: Option<PathBuf>,
    /// Write everything as Parquet to this file instead of showing a page
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    parquet: Option<PathBuf>,
}

impl Export {
    /// Writes the table behind `path` where that was asked for; whether it was.
    async fn write(&self, client: &Client, path: &str) -> Result<bool> {
        let (file, format) = match (&self.csv, &self.parquet) {
            (Some(file), _) => (file, "csv"),
            (None, Some(file)) => (file, "parquet"),
            (None, None) => return Ok(false),
        };
        let joint = if path.contains('?') { '&' } else { '?' };
        download(client, &format!("{path}{joint}format={format}"), file).await?;
        Ok(true)
    }
}

/// Writes a whole table where that was asked for, else shows a page of it.
async fn report(
    client: &Client,
    (path, page): (&str, &str),
    (export, as_json): (&Export, bool),
    render: fn(&Value) -> String,
) -> Result<Outcome> {
    if export.write(client, path).await? {
        return Ok(Outcome::Done);
    }
    screen::show(&client.read(&format!("{path}{page}")).await?, as_json, render)
}

/// Adds a parameter to a query for each value that was given.
fn with(mut path: String, given: &[(&str, &Option<String>)]) -> String {
    for (name, value) in given {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={value}"));
        }
    }
    path
}

/// What is said below a page that is not the last one.
fn more(answer: &Value) -> String {
    let next = answer.get("next").and_then(Value::as_str);
    next.map_or_else(String::new, |next| format!("\nmore rows: {next}; --csv or --parquet writes all\n"))
}

/// Fetches content into a file. What breaks off leaves nothing behind.
async fn download(client: &Client, path: &str, file: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    let mut bytes = 0u64;
    let fetched = client.fetch(path, |piece| {
        bytes += piece.len() as u64;
        part.write_all(piece)
    });
    fetched.await?.with_context(cannot)?;
    part.as_file().sync_all().with_context(cannot)?;
    part.persist(file).map_err(|failed| failed.error).with_context(cannot)?;
    screen::remark(&format!("{}: {}\n", file.display(), number::bytes(bytes)));
    Ok(())
}

/// Opens a file for reading.
fn open(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("cannot read {}", file.display()))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn count(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn signed(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or(0)
}

/// Millionths as a decimal number, exactly: `1,234.5`.
fn millionths(micro: i64) -> String {
    let size = micro.unsigned_abs();
    let decimals = format!("{:06}", size % 1_000_000);
    let sign = if micro < 0 { "-" } else { "" };
    match decimals.trim_end_matches('0') {
        "" => format!("{sign}{}", number::count(size / 1_000_000)),
        decimals => format!("{sign}{}.{decimals}", number::count(size / 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_print_exactly() {
        let all = [0, 1, -1, 1_420_000, 1_234_000_000, -170_001, i64::MIN].map(millionths);
        assert_eq!(all, ["0", "0.000001", "-0.000001", "1.42", "1,234", "-0.170001", "-9,223,372,036,854.775808"]);
    }
}
