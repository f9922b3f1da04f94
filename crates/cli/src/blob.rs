//! `forgepool blob`: a project's content: put it there, get it back, list it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forge_contract::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::listing::ListArgs;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::transfer::{self, Sent};
use crate::vmem::Named;
use crate::{number, screen};

/// Sends, fetches and lists content that jobs read as inputs.
///
/// Content is named by its BLAKE3 digest: that is what a contract's args hold. An upload that broke off goes on with the
/// same command.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send files; prints the digest of each
    Put(PutArgs),
    /// Fetch content into a file
    Get(GetArgs),
    /// List the project's content, newest first
    List(ListArgs),
    /// Give up the project's claim on content; what names it keeps it
    Delete(DeleteArgs),
    /// Remove stored files that nothing names, now; needs a key with the scope `admin`
    Collect(CollectArgs),
}

#[derive(Debug, clap::Args)]
struct PutArgs {
    /// What to send, as it is; a .npy file needs nothing special
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print what is there as JSON
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    /// BLAKE3 of the content, 64 hexadecimal digits
    digest: Digest,
    /// Where to write it
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// BLAKE3 of the content, 64 hexadecimal digits
    digest: Digest,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct CollectArgs {
    /// How long nothing must have named a file; the hub's own period where absent, which is a day
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The files, the connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Put(args) => put(args).await,
        Command::Get(args) => get(args).await,
        Command::List(args) => args.show("/api/v0/blobs", render).await,
        Command::Delete(args) => delete(args).await,
        Command::Collect(args) => collect(args).await,
    }
}

async fn put(args: PutArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let mut items = Vec::new();
    for file in &args.files {
        let (content, sent) = upload(&client, file, args.quiet).await?;
        if args.json {
            let new = sent == Sent::Now;
            items.push(json!({"file": file.display().to_string(), "digest": content.digest, "bytes": content.bytes, "new": new}));
        } else {
            screen::print(&format!("{}  {}\n", content.digest, file.display()))?;
        }
    }
    if args.json {
        screen::print(&screen::json(&json!({ "items": items })))?;
    }
    Ok(Outcome::Done)
}

async fn upload(client: &Client, file: &Path, quiet: bool) -> Result<(transfer::Content, Sent)> {
    let path = file.to_owned();
    let content = tokio::task::spawn_blocking(move || transfer::content_of(&path)).await??;
    let sent = transfer::put(client, file, content, quiet).await?;
    Ok((content, sent))
}

async fn get(args: GetArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let bytes = transfer::get(&client, &args.digest, &args.output, args.quiet).await?;
    if !args.quiet {
        screen::remark(&format!("{}: {}, digest verified\n", args.output.display(), number::bytes(bytes)));
    }
    Ok(Outcome::Done)
}

async fn delete(args: DeleteArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let request = client.request(Method::DELETE, &format!("/api/v0/blobs/{}", args.digest));
    client.refuse_errors(client.send(request).await?).await?;
    Ok(Outcome::Done)
}

async fn collect(args: CollectArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let grace = args.grace.map(|seconds| format!("?grace_s={seconds}")).unwrap_or_default();
    let (_, answer) = client.answer(client.request(Method::POST, &format!("/api/v0/garbage{grace}"))).await?;
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (removed, marked) = (number::count(number("removed")), number::count(number("marked")));
    let said = format!("{removed} files removed, {}; {marked} more wait\n", number::bytes(number("bytes")));
    screen::show(&answer, args.json, |_| said)
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[("digest", Align::Left), ("bytes", Align::Right), ("sent (UTC)", Align::Left)]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let number = |name: &str| item.get(name).and_then(Value::as_u64);
        table.row([
            item.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned(),
            number("bytes").map(number::count).unwrap_or_default(),
            number("created_at_ms").map(number::instant).unwrap_or_default(),
        ]);
    }
    if table.is_empty() { "no content yet: `forgepool blob put FILE` sends some\n".to_owned() } else { table.render() }
}

/// An argument that is stored content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The argument's name.
    argument: String,
    /// What it is.
    from: From,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    /// A file, which is sent where needed.
    File(PathBuf),
    /// An array by name.
    Array(Named),
}

impl std::str::FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((argument, from)) if !argument.is_empty() && !from.is_empty() => {
                let from = match from.strip_prefix("vmem:") {
                    Some(array) => From::Array(array.parse()?),
                    None => From::File(from.into()),
                };
                Ok(Self { argument: argument.to_owned(), from })
            }
            _ => Err(format!("expected ARG=FILE, such as a=matrix.npy, or ARG=vmem:NAME@VERSION, found '{text}'")),
        }
    }
}

/// Sends the files where needed and puts their digests into the contract's args.
///
/// # Errors
/// A contract that is no JSON object, or what [`run`] can meet.
pub async fn with_inputs(client: &Client, contract: String, inputs: &[Input], quiet: bool) -> Result<String> {
    if inputs.is_empty() {
        return Ok(contract);
    }
    // Before anything is sent.
    let mut value = object(&contract)?;
    for Input { argument, from } in inputs {
        let file = match from {
            From::File(file) => file,
            From::Array(array) => {
                set(&mut value, argument, array.value())?;
                continue;
            }
        };
        let (content, sent) = upload(client, file, quiet).await?;
        if !quiet {
            let how = if sent == Sent::Now { "sent" } else { "there already" };
            let (name, size) = (file.display(), number::bytes(content.bytes));
            screen::remark(&format!("  args.{argument} = {} ({name}, {size}, {how})\n", content.digest));
        }
        set(&mut value, argument, json!(content.digest))?;
    }
    Ok(value.to_string())
}

fn object(contract: &str) -> Result<Value> {
    let value: Value =
        serde_json::from_str(contract).context("--input cannot be put into the contract: it is no JSON")?;
    if !value.is_object() {
        bail!("--input cannot be put into the contract: it is no JSON object");
    }
    Ok(value)
}

fn set(contract: &mut Value, argument: &str, content: Value) -> Result<()> {
    let args = contract.as_object_mut().map(|contract| contract.entry("args").or_insert_with(|| json!({})));
    let Some(args) = args.and_then(Value::as_object_mut) else {
        bail!("--input {argument}: the contract's args are no object");
    };
    args.insert(argument.to_owned(), content);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_input_is_an_argument_and_a_file() {
        let input: Input = "a=dir/x=1.npy".parse().unwrap();
        assert_eq!(input, Input { argument: "a".into(), from: From::File("dir/x=1.npy".into()) });
        let array = From::Array(Named { name: "x".into(), version: Some(2) });
        assert_eq!("a=vmem:x@2".parse::<Input>().unwrap(), Input { argument: "a".into(), from: array });
        assert!("a=vmem:../x".parse::<Input>().is_err());
        for bad in ["a", "=f", "a="] {
            assert!(bad.parse::<Input>().unwrap_err().contains("ARG=FILE"));
        }
    }

    #[test]
    fn digests_go_into_args() {
        let digest = Digest::of(b"x");
        let mut contract = object(r#"{"op": 1, "args": {"n": 1.5, "a": "old"}}"#).unwrap();
        set(&mut contract, "a", json!(digest)).unwrap();
        assert_eq!(contract, json!({"op": 1, "args": {"n": 1.5, "a": digest.to_string()}}));
        let mut without = object("{}").unwrap();
        set(&mut without, "a", json!(digest)).unwrap();
        assert_eq!(without["args"]["a"], digest.to_string());
        assert!(set(&mut object(r#"{"args": 3}"#).unwrap(), "a", json!(digest)).is_err());
        assert!(object("[1]").is_err() && object("{").is_err());
    }
}
