//! `forgepool key`: API keys.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::limits::seconds;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// API keys: made and printed once, listed, replaced, revoked.
///
/// Needs a key with `admin`, but for `show` without an id. A revoked key works no more from the moment the command
/// answers; jobs it began go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Scopes:
  compute   see what is the project's, plan, execute, cancel, replay, send content and kernels
  read      see what is the project's
  admin     manage the organisation: projects, keys, members, limits
  provider  enrol agents for the organisation's provider account

Examples:
  forgepool key create --scopes compute --name nightly --expires 90d
  forgepool key rotate key_0123456789abcdef0123 --grace 1h
  forgepool key revoke key_0123456789abcdef0123")]
pub struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    /// Print the hub's answer as JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// The organisation's keys
    List(List),
    /// A key by its id; without one, whose the key is that this command uses
    Show(Show),
    /// Make a key; its text is printed once, on a line of its own
    Create(Create),
    /// Replace a key by one that may do the same; the new text is printed once
    Rotate(Rotate),
    /// Revoke a key for ever, at once
    Revoke(Which),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those of this project
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Also those that are revoked
    #[arg(long)]
    revoked: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    id: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    id: String,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What it may do: compute, read, admin, provider, with commas between
    #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE,..")]
    scopes: Vec<String>,
    /// What it is for
    #[arg(long)]
    name: Option<String>,
    /// Its project [default: that of the key in use]
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// The member whose it is: the role narrows what it may do
    #[arg(long, value_name = "MEMBER")]
    member: Option<String>,
    /// How long it works, such as 90d; for ever unless told
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    #[command(flatten)]
    which: Which,
    /// How long the old one goes on working, such as 1h; at most a day
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "0s")]
    grace: u64,
}

/// Runs the command.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let of = |id: &str| format!("/api/v0/keys/{id}");
    let (answer, render): (Value, fn(&Value) -> String) =
        match args.word.unwrap_or(Word::List(List { project: None, revoked: false })) {
            Word::List(List { project, revoked }) => {
                let filter = project.map_or_else(String::new, |project| format!("&project={project}"));
                (client.read(&format!("/api/v0/keys?revoked={revoked}{filter}")).await?, list)
            }
            Word::Show(Show { id: Some(id) }) => (client.read(&of(&id)).await?, one),
            Word::Show(Show { id: None }) => (client.read(&of("current")).await?, caller),
            Word::Create(create) => {
                let mut wish = json!({ "scopes": create.scopes });
                if let Some(wish) = wish.as_object_mut() {
                    let also = [("name", create.name), ("project", create.project), ("member", create.member)];
                    wish.extend(also.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
                    wish.extend(create.expires.map(|seconds| ("seconds".to_owned(), seconds.into())));
                }
                (client.send_json(Method::POST, "/api/v0/keys", &wish).await?, made)
            }
            Word::Rotate(Rotate { which, grace }) => {
                let path = format!("{}/rotate", of(&which.id));
                (client.send_json(Method::POST, &path, &json!({ "grace_seconds": grace })).await?, made)
            }
            Word::Revoke(which) => (client.answer(client.request(Method::DELETE, &of(&which.id))).await?.1, one),
        };
    screen::show(&answer, args.json, render)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn scopes(value: &Value) -> String {
    let words = value.get("scopes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn moment(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_u64).map(number::instant).unwrap_or_default()
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("key", Align::Left),
        ("begins", Align::Left),
        ("name", Align::Left),
        ("project", Align::Left),
        ("scopes", Align::Left),
        ("last used (UTC)", Align::Left),
        ("ends (UTC)", Align::Left),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let revoked = moment(item, "revoked_at_ms");
        table.row([
            text(item, "id"),
            text(item, "hint"),
            text(item, "name"),
            text(item, "project"),
            scopes(item),
            moment(item, "last_used_at_ms"),
            if revoked.is_empty() { moment(item, "expires_at_ms") } else { format!("revoked {revoked}") },
        ]);
    }
    table.render()
}

fn one(item: &Value) -> String {
    list(&json!({ "items": [item] }))
}

fn caller(item: &Value) -> String {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    let operator = item.get("operator").and_then(Value::as_bool) == Some(true);
    let rows = [
        ("organisation", text(item, "organisation")),
        ("project", text(item, "project")),
        ("key", text(item, "key")),
        ("member", text(item, "member")),
        ("scopes", scopes(item)),
        ("operator", if operator { "yes".into() } else { String::new() }),
        ("ends (UTC)", moment(item, "expires_at_ms")),
    ];
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.row([name.to_owned(), value]);
    }
    table.render()
}

fn made(item: &Value) -> String {
    let place = format!("{} of the project {} ({})", text(item, "id"), text(item, "project"), scopes(item));
    screen::remark(&format!("{place}, shown once:\n"));
    format!("{}\n", text(item, "key"))
}
