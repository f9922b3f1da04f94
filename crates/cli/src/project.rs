//! `forgepool project`: projects, their limits, and where their jobs run.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::limits::{self, LimitArgs, PoolArgs};
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Projects: what keys, jobs, kernels and data belong to; their limits, and where their jobs run.
///
/// Needs a key with `admin` for everything but looking at the key's own project.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  forgepool project show                                     the key's own: limits, and what is in use
  forgepool project create nightly --concurrent-jobs 4
  forgepool project limits nightly --fuel-per-job none
  forgepool project pool nightly --region eu --exclusive     its jobs never leave the agents reserved for it")]
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
    /// The projects that this key sees
    List(List),
    /// One project, its limits and what it uses; the key's own unless named
    Show(Show),
    /// Make a project; keys of it are made with `forgepool key create --project`
    Create(Create),
    /// Set or lift limits; those that are not named stay
    Limits(Limits),
    /// Say where its jobs run from now on: everything that is not named is dropped
    Pool(Pool),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those of this organisation
    #[arg(long = "org", value_name = "ORGANISATION")]
    organisation: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The project's id [default: the key's own]
    #[arg(value_name = "PROJECT")]
    project: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its id; its kernels are named ID/NAME: lower-case letters, digits and '-'
    #[arg(value_name = "ID")]
    id: String,
    /// Its name, for people
    #[arg(long)]
    name: Option<String>,
    /// Whose it is [default: the key's own organisation]
    #[arg(long = "org", value_name = "ORGANISATION")]
    organisation: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    pool: PoolArgs,
}

#[derive(Debug, clap::Args)]
struct Limits {
    /// The project's id
    #[arg(value_name = "PROJECT")]
    project: String,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, clap::Args)]
struct Pool {
    /// The project's id
    #[arg(value_name = "PROJECT")]
    project: String,
    #[command(flatten)]
    pool: PoolArgs,
}

/// Runs the command.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let of = |project: &str| format!("/api/v0/projects/{project}");
    let (answer, render): (Value, fn(&Value) -> String) =
        match args.word.unwrap_or(Word::List(List { organisation: None })) {
            Word::List(List { organisation }) => {
                let filter = organisation.map_or_else(String::new, |id| format!("?organisation={id}"));
                (client.read(&format!("/api/v0/projects{filter}")).await?, list)
            }
            Word::Show(Show { project }) => {
                let project = match project {
                    Some(project) => project,
                    None => text(&client.read("/api/v0/keys/current").await?, "project"),
                };
                (client.read(&of(&project)).await?, one)
            }
            Word::Create(create) => {
                let mut wish =
                    json!({ "id": create.id, "limits": create.limits.change()?, "pool": create.pool.pool() });
                if let Some(wish) = wish.as_object_mut() {
                    let also = [("name", create.name), ("organisation", create.organisation)];
                    wish.extend(also.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
                }
                (client.send_json(Method::POST, "/api/v0/projects", &wish).await?, one)
            }
            Word::Limits(Limits { project, limits }) => {
                let change = json!({ "limits": limits.change()? });
                (client.send_json(Method::PATCH, &of(&project), &change).await?, one)
            }
            Word::Pool(Pool { project, pool }) => {
                (client.send_json(Method::PATCH, &of(&project), &json!({ "pool": pool.pool() })).await?, one)
            }
        };
    screen::show(&answer, args.json, render)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("project", Align::Left),
        ("organisation", Align::Left),
        ("name", Align::Left),
        ("runs on", Align::Left),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        table.row([text(item, "id"), text(item, "organisation"), text(item, "name"), limits::pool(item.get("pool"))]);
    }
    table.render()
}

fn one(item: &Value) -> String {
    let since = item.get("created_at_ms").and_then(Value::as_u64).map(number::instant).unwrap_or_default();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (name, value) in [
        ("project", text(item, "id")),
        ("organisation", text(item, "organisation")),
        ("name", text(item, "name")),
        ("runs on", limits::pool(item.get("pool"))),
        ("since (UTC)", since),
    ] {
        table.row([name.to_owned(), value]);
    }
    let used = |name: &str| item.get("usage").and_then(|usage| usage.get(name)).and_then(Value::as_u64);
    format!("{}\n{}", table.render(), limits::render(item.get("limits_in_force"), used))
}
