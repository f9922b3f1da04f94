//! `forgepool vmem`: arrays by name and version.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use forge_contract::key;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::listing::ListArgs;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Bytes read from a file at a time.
const PIECE_BYTES: u64 = 256 << 10;
const NPY: &str = "application/x-npy";
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const ARROW_FILE: &str = "application/vnd.apache.arrow.file";

/// Keeps, fetches and lists numeric arrays by name.
///
/// Each array that is put becomes the next version of its name and never changes. A contract names one as an input:
/// {"vmem": "NAME", "version": 3}, or `forgepool run CONTRACT --input a=vmem:NAME@3`. With "artifacts": {"vmem": "NAME"}
/// the array in a job's result becomes the next version.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Keep a .npy or Arrow file as the next version; prints NAME@VERSION
    Put(PutArgs),
    /// Fetch a version, or a part of it, into a file
    Get(GetArgs),
    /// List arrays, each with its latest version
    List(ListArgs),
    /// Show what is known of a version, or of all versions of a name
    Show(ShowArgs),
    /// Delete a version for good; its number is never given again
    Delete(DeleteArgs),
}

/// An array's name, perhaps with a version: `losses`, `losses@3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The version; the latest where absent.
    pub version: Option<u64>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        key::word(name).map_err(|error| format!("the name: {error}"))?;
        let version = version.map(|version| {
            let number = version.parse().ok().filter(|number| *number >= 1);
            number.ok_or_else(|| format!("the version: expected an integer from 1, found '{version}'"))
        });
        Ok(Self { name: name.to_owned(), version: version.transpose()? })
    }
}

impl Named {
    fn path(&self) -> String {
        match self.version {
            Some(version) => format!("/api/v0/vmem/{}/{version}", self.name),
            None => format!("/api/v0/vmem/{}", self.name),
        }
    }

    /// As a contract's args name it.
    pub fn value(&self) -> Value {
        match self.version {
            Some(version) => json!({"vmem": self.name, "version": version}),
            None => json!({"vmem": self.name}),
        }
    }
}

/// How an array is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// numpy's format
    Npy,
    /// Arrow's streaming format
    Arrow,
    /// Arrow's file format
    ArrowFile,
}

#[derive(Debug, clap::Args)]
struct PutArgs {
    /// Its name: 1 to 64 letters, digits, '.', '_', '-'
    #[arg(value_parser = name)]
    name: String,
    /// A .npy file, or Arrow of one column; what it is, is seen from its first bytes
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print what is there as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

fn name(text: &str) -> Result<String, key::KeyError> {
    key::word(text).map(|()| text.to_owned())
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// NAME or NAME@VERSION
    array: Named,
    /// Where to write it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Only this part, as in numpy: 0:10,:,3
    #[arg(long, value_name = "SLICE", allow_hyphen_values = true)]
    slice: Option<String>,
    /// In which format
    #[arg(long, value_enum, default_value_t = Wanted::Npy)]
    format: Wanted,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// NAME for all versions, NAME@VERSION for one
    array: Named,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// NAME@VERSION
    array: Named,
    #[command(flatten)]
    target: TargetArgs,
}

/// What stands in the place of an empty list.
const NONE: &str = "no arrays yet: `forgepool vmem put NAME FILE` keeps one\n";

/// Runs the command.
///
/// # Errors
/// The files, the connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Put(args) => put(args).await,
        Command::Get(args) => get(args).await,
        Command::List(args) => args.show("/api/v0/vmem", |answer| render(answer, NONE)).await,
        Command::Show(args) => show(args).await,
        Command::Delete(args) => delete(args).await,
    }
}

async fn put(args: PutArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let unread = || format!("cannot read {}", args.file.display());
    let media_type = media_type(&args.file).with_context(unread)?;
    let file = File::open(&args.file).with_context(unread)?;
    let bytes = file.metadata().with_context(unread)?.len();
    let request = client.request(Method::POST, &format!("/api/v0/vmem/{}", args.name));
    let request = request.header(CONTENT_TYPE, media_type).header("content-length", bytes);
    let (_, item) = client.answer(request.body(reqwest::Body::wrap_stream(pieces(file)))).await?;
    let version = item.get("version").and_then(Value::as_u64).unwrap_or_default();
    screen::print(&if args.json { screen::json(&item) } else { format!("{}@{version}\n", args.name) })?;
    Ok(Outcome::Done)
}

/// A file piece by piece.
fn pieces(file: File) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    let next = async |mut file: File| {
        let mut piece = Vec::new();
        match (&mut file).take(PIECE_BYTES).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.into()), file)),
            Err(error) => Some((Err(error), file)),
        }
    };
    futures_util::stream::unfold(file, next)
}

/// What a file is, by its first bytes: anything that is neither `.npy` nor an Arrow file may be an Arrow stream.
fn media_type(path: &Path) -> std::io::Result<&'static str> {
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    Ok(if start.starts_with(forge_contract::array::npy::MAGIC) {
        NPY
    } else if start.starts_with(b"ARROW1") {
        ARROW_FILE
    } else if start.starts_with(&[0xff; 4]) {
        ARROW_STREAM
    } else {
        // The hub's refusal names what it takes.
        NPY
    })
}

async fn get(args: GetArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let request = client.request(Method::GET, &args.array.path()).header(
        ACCEPT,
        match args.format {
            Wanted::Npy => NPY,
            Wanted::Arrow => ARROW_STREAM,
            Wanted::ArrowFile => ARROW_FILE,
        },
    );
    let request = match &args.slice {
        Some(slice) => request.query(&[("slice", slice)]),
        None => request,
    };
    let response = client.refuse_errors(client.send(request).await?).await?;
    let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (version, dtype, shape) = (field("forge-version"), field("forge-dtype"), field("forge-shape"));
    let unwritten = || format!("cannot write {}", args.output.display());
    let beside = args.output.with_extension("part");
    let mut file = File::create(&beside).with_context(unwritten)?;
    let written = receive(&client, response, &mut file).await;
    if written.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    let bytes = written?;
    file.sync_all().with_context(unwritten)?;
    std::fs::rename(&beside, &args.output).with_context(unwritten)?;
    let (version, dtype, shape) = (version.unwrap_or_default(), dtype.unwrap_or_default(), shape.unwrap_or_default());
    if args.json {
        let version: Option<u64> = version.parse().ok();
        let shape: Value = serde_json::from_str(&shape).unwrap_or_default();
        let file = args.output.display().to_string();
        let written = json!({"file": file, "name": args.array.name, "version": version, "dtype": dtype, "shape": shape, "bytes": bytes});
        screen::print(&screen::json(&written))?;
    } else {
        let (file, size) = (args.output.display(), number::bytes(bytes));
        screen::remark(&format!("{file}: {}@{version}, {dtype} {shape}, {size}\n", args.array.name));
    }
    Ok(Outcome::Done)
}

async fn receive(client: &Client, mut response: reqwest::Response, file: &mut File) -> Result<u64> {
    let mut bytes = 0;
    while let Some(piece) = response.chunk().await.map_err(|cause| client.unreachable(cause))? {
        file.write_all(&piece).context("cannot write what came")?;
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

async fn show(args: ShowArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let answer = if args.array.version.is_some() {
        client.answer(client.request(Method::GET, &args.array.path()).header(ACCEPT, "application/json")).await?.1
    } else {
        client.read(&format!("/api/v0/vmem/{}/versions?limit=1000", args.array.name)).await?
    };
    let items = if args.array.version.is_some() { json!({ "items": [answer] }) } else { answer.clone() };
    screen::show(&answer, args.json, |_| render(&items, ""))
}

async fn delete(args: DeleteArgs) -> Result<Outcome> {
    let version = args.array.version.context("name the version to delete, NAME@VERSION")?;
    let client = Client::new(args.target.resolve()?)?;
    let request = client.request(Method::DELETE, &format!("/api/v0/vmem/{}/{version}", args.array.name));
    client.refuse_errors(client.send(request).await?).await?;
    Ok(Outcome::Done)
}

fn render(answer: &Value, none: &str) -> String {
    let mut table = Table::new(&[
        ("array", Align::Left),
        ("dtype", Align::Left),
        ("shape", Align::Left),
        ("bytes", Align::Right),
        ("digest", Align::Left),
        ("kept (UTC)", Align::Left),
        ("job", Align::Left),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| item.get(name).and_then(Value::as_u64);
        let shape: Vec<String> =
            item.get("shape").and_then(Value::as_array).into_iter().flatten().map(ToString::to_string).collect();
        let digest = item
            .get("digest")
            .and_then(Value::as_str)
            .map_or("(deleted)".into(), |digest| digest.chars().take(12).collect::<String>());
        table.row([
            format!("{}@{}", text("name"), number("version").unwrap_or_default()),
            text("dtype"),
            if shape.is_empty() { "scalar".into() } else { shape.join(" x ") },
            number("bytes").map(number::count).unwrap_or_default(),
            digest,
            number("created_at_ms").map(number::instant).unwrap_or_default(),
            text("job_id"),
        ]);
    }
    if table.is_empty() { none.to_owned() } else { table.render() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_may_have_a_version() {
        let named = |text: &str| text.parse::<Named>();
        assert_eq!(named("a.b").unwrap(), Named { name: "a.b".into(), version: None });
        assert_eq!(named("a@3").unwrap().path(), "/api/v0/vmem/a/3");
        assert_eq!(named("a@3").unwrap().value(), json!({"vmem": "a", "version": 3}));
        for bad in ["", "@3", "a@0", "a@x", "a/b", "a@"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arrays_are_listed() {
        let answer = json!({"items": [
            {"name": "a", "version": 2, "dtype": "f64", "shape": [3, 4], "bytes": 224, "digest": "0123456789abcdef", "created_at_ms": 0},
            {"name": "a", "version": 1, "dtype": "i32", "shape": [], "bytes": 132, "created_at_ms": 0},
        ]});
        let shown = render(&answer, "");
        assert!(shown.contains("a@2") && shown.contains("3 x 4") && shown.contains("0123456789ab "), "{shown}");
        assert!(shown.contains("(deleted)") && shown.contains("scalar"), "{shown}");
        assert_eq!(render(&json!({"items": []}), "none"), "none");
    }
}
