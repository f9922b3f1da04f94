//! `forgepool kv`: values by namespace and key.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use forge_contract::key;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::listing::ListArgs;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Keeps, reads and lists small values by namespace and key.
///
/// A value has at most 1 MiB and any media type. Its ETag changes with every write and is never used twice: with
/// --if-match a write is refused where somebody else wrote in between. The artifacts of jobs stand under the namespace that
/// their contract names, `jobs` where it names none, as JOB/NAME.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a value to standard output, or to a file
    Get(GetArgs),
    /// Keep a value: text, a file, or standard input
    Put(PutArgs),
    /// List namespaces, or the keys of one
    List(KeysArgs),
    /// Remove a key
    Delete(DeleteArgs),
}

/// Where a value stands.
#[derive(Debug, clap::Args)]
struct Place {
    /// 1 to 64 letters, digits, '.', '_', '-'
    #[arg(value_parser = namespace)]
    namespace: String,
    /// 1 to 512 bytes: steps of letters, digits and ._-~:@=+, between slashes
    // Another argument of the command is called `key`: that of the hub.
    #[arg(id = "entry", value_name = "KEY", value_parser = key_of)]
    key: String,
}

impl Place {
    fn path(&self) -> String {
        format!("/api/v0/kv/{}/{}", self.namespace, self.key)
    }
}

fn namespace(text: &str) -> Result<String, key::KeyError> {
    key::word(text).map(|()| text.to_owned())
}

fn key_of(text: &str) -> Result<String, key::KeyError> {
    key::key(text).map(|()| text.to_owned())
}

#[derive(Debug, clap::Args)]
struct GetArgs {
    #[command(flatten)]
    place: Place,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print what is known of it as JSON, with the value where that is text
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct PutArgs {
    #[command(flatten)]
    place: Place,
    /// The value as text; standard input where neither it nor --file is there
    value: Option<String>,
    /// The value is this file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Its media type; text/plain for text, application/octet-stream otherwise
    #[arg(long, value_name = "TYPE", value_parser = NonEmptyStringValueParser::new())]
    content_type: Option<String>,
    /// Seconds until it stops being there; for ever where absent
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Only where the value has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only where there is nothing
    #[arg(long, conflicts_with = "if_match")]
    new: bool,
    /// Print the entry as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Args)]
struct KeysArgs {
    /// Whose keys; the namespaces where absent
    #[arg(value_parser = namespace)]
    namespace: Option<String>,
    /// Only keys that begin with this
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: String,
    /// Only what comes after this one
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    #[command(flatten)]
    shown: ListArgs,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    #[command(flatten)]
    place: Place,
    /// Only where the value has this ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The files, the connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Get(args) => get(args).await,
        Command::Put(args) => put(args).await,
        Command::List(args) => list(args).await,
        Command::Delete(args) => delete(args).await,
    }
}

/// An ETag as it is sent: in its quotes, whether or not the shell kept them.
fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

async fn get(args: GetArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let response = client.send(client.request(Method::GET, &args.place.path())).await?;
    let response = client.refuse_errors(response).await?;
    let headers = response.headers().clone();
    let value = response.bytes().await.map_err(|cause| client.unreachable(cause))?;
    if args.json {
        screen::print(&screen::json(&described(&args.place, &headers, &value)))?;
    } else if let Some(file) = &args.output {
        std::fs::write(file, &value).with_context(|| format!("cannot write {}", file.display()))?;
    } else {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&value).and_then(|()| stdout.flush())?;
    }
    Ok(Outcome::Done)
}

fn described(place: &Place, headers: &HeaderMap, value: &[u8]) -> Value {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    json!({
        "namespace": place.namespace,
        "key": place.key,
        "etag": field("etag"),
        "digest": field("forge-digest"),
        "bytes": value.len(),
        "content_type": field("content-type"),
        "expires_at": field("forge-expires-at"),
        "text": std::str::from_utf8(value).ok(),
    })
}

async fn put(args: PutArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let (value, usual) = match (&args.value, &args.file) {
        (Some(text), _) => (text.clone().into_bytes(), "text/plain; charset=utf-8"),
        (None, Some(file)) => {
            let read = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            (read, "application/octet-stream")
        }
        (None, None) => {
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut read)
                .context("cannot read standard input")?;
            (read, "application/octet-stream")
        }
    };
    let ttl = args.ttl.map(|seconds| format!("?ttl_s={seconds}")).unwrap_or_default();
    let request = client.request(Method::PUT, &format!("{}{ttl}", args.place.path()));
    let request = request.header(CONTENT_TYPE, args.content_type.as_deref().unwrap_or(usual));
    let request = match (args.new, &args.if_match) {
        (true, _) => request.header("if-none-match", "*"),
        (false, Some(etag)) => request.header("if-match", quoted(etag)),
        (false, None) => request,
    };
    let (_, entry) = client.answer(request.body(value)).await?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let line = format!("{}/{}  ETag {}\n", text("namespace"), text("key"), text("etag"));
    screen::print(&if args.json { screen::json(&entry) } else { line })?;
    Ok(Outcome::Done)
}

async fn delete(args: DeleteArgs) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let request = client.request(Method::DELETE, &args.place.path());
    let conditional = |request: RequestBuilder| match &args.if_match {
        Some(etag) => request.header("if-match", quoted(etag)),
        None => request,
    };
    client.refuse_errors(client.send(conditional(request)).await?).await?;
    Ok(Outcome::Done)
}

async fn list(args: KeysArgs) -> Result<Outcome> {
    if args.namespace.is_none() && !args.prefix.is_empty() {
        bail!("--prefix is of keys: name a namespace before it");
    }
    key::prefix(&args.prefix).context("--prefix")?;
    let after = args.after.as_deref().unwrap_or_default();
    key::prefix(after).context("--after")?;
    let mut query = Vec::new();
    if !after.is_empty() {
        query.push(format!("after={}", escaped(after)));
    }
    let mut path = "/api/v0/kv".to_owned();
    if let Some(namespace) = &args.namespace {
        path = format!("{path}/{namespace}");
        query.push(format!("prefix={}", escaped(&args.prefix)));
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let render = if args.namespace.is_none() { namespaces } else { entries };
    args.shown.show(&path, render).await
}

/// A key as a value of a query: of what keys may have, a plus sign alone means something else there.
fn escaped(text: &str) -> String {
    text.replace('+', "%2B")
}

fn items(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn namespaces(answer: &Value) -> String {
    let mut table = Table::new(&[("namespace", Align::Left), ("keys", Align::Right), ("bytes", Align::Right)]);
    for item in items(answer) {
        let count = |name: &str| item.get(name).and_then(Value::as_u64).map(number::count).unwrap_or_default();
        let name = item.get("namespace").and_then(Value::as_str).unwrap_or_default();
        table.row([name.to_owned(), count("keys"), count("bytes")]);
    }
    if table.is_empty() {
        "no values yet: `forgepool kv put NAMESPACE KEY VALUE` keeps one\n".into()
    } else {
        table.render()
    }
}

fn entries(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("key", Align::Left),
        ("bytes", Align::Right),
        ("media type", Align::Left),
        ("ETag", Align::Left),
        ("written (UTC)", Align::Left),
        ("until (UTC)", Align::Left),
    ]);
    for item in items(answer) {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let time = |name: &str| item.get(name).and_then(Value::as_u64).map(number::instant).unwrap_or_default();
        let bytes = item.get("bytes").and_then(Value::as_u64).map(number::count).unwrap_or_default();
        table.row([
            text("key"),
            bytes,
            text("content_type"),
            text("etag"),
            time("updated_at_ms"),
            time("expires_at_ms"),
        ]);
    }
    if table.is_empty() { "no such keys\n".into() } else { table.render() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_listed_lines_up() {
        let answer = json!({"items": [{"key": "a/b", "bytes": 1234, "content_type": "text/plain", "etag": "\"7\"", "updated_at_ms": 0}]});
        let shown = entries(&answer);
        assert!(shown.contains("a/b") && shown.contains("1,234") && shown.contains("\"7\""), "{shown}");
        assert!(namespaces(&json!({"items": []})).contains("kv put"));
        assert_eq!((quoted("7"), quoted("\"7\"")), ("\"7\"".into(), "\"7\"".into()));
        assert!(key_of("a/../b").unwrap_err().to_string().contains("'..'"));
    }
}
