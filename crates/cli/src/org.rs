//! `forgepool org`: organisations and their members.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::Outcome;
use crate::limits::{self, LimitArgs};
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::{number, screen};

/// Organisations, what the operator lets them use, and their members.
///
/// The operator (a key with `admin` in the organisation that the hub's first start made) makes organisations and sets
/// their ceilings; an organisation's own `admin` keys manage its members.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  forgepool org create acme                       an organisation, a project of that name, and its first key
  forgepool org limits acme --concurrent-jobs 50  what its projects may have at most
  forgepool org add-member ada@acme.example --role admin")]
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
    /// The organisations that this key sees
    List,
    /// One organisation; the key's own unless named
    Show(Which),
    /// Make an organisation with a project and a key; the key is printed once
    Create(Create),
    /// Set what an organisation's projects may use at most
    Limits(Ceilings),
    /// The members of an organisation
    Members(Which),
    /// Add a member; it gets in by keys that name it (`forgepool key create --member`)
    AddMember(AddMember),
    /// Change a member's role; its keys follow at once
    Role(Role),
    /// Remove a member and revoke its keys
    RemoveMember(Member),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The organisation's id [default: the key's own]
    #[arg(value_name = "ORGANISATION")]
    organisation: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Its id, which is its first project's too: lower-case letters, digits and '-'
    #[arg(value_name = "ID")]
    id: String,
    /// Its name, for people
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, clap::Args)]
struct Ceilings {
    /// The organisation's id
    #[arg(value_name = "ORGANISATION")]
    organisation: String,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, clap::Args)]
struct AddMember {
    /// Its name, such as an address of mail
    #[arg(value_name = "NAME")]
    name: String,
    /// owner, admin, member or viewer
    #[arg(long, default_value = "member")]
    role: String,
    /// The organisation's id [default: the key's own]
    #[arg(long = "org", value_name = "ORGANISATION")]
    organisation: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Member {
    /// The member's id
    #[arg(value_name = "MEMBER")]
    member: String,
    /// The organisation's id [default: the key's own]
    #[arg(long = "org", value_name = "ORGANISATION")]
    organisation: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Role {
    #[command(flatten)]
    whom: Member,
    /// owner, admin, member or viewer
    #[arg(value_name = "ROLE")]
    role: String,
}

/// Runs the command.
///
/// # Errors
/// The connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let client = Client::new(args.target.resolve()?)?;
    let (answer, render): (Value, fn(&Value) -> String) = match args.word.unwrap_or(Word::List) {
        Word::List => (client.read("/api/v0/organisations").await?, list),
        Word::Show(which) => (client.read(&path(&client, which.organisation).await?).await?, one),
        Word::Create(create) => {
            let mut wish = json!({ "id": create.id, "ceilings": create.limits.change()? });
            if let (Some(name), Some(wish)) = (create.name, wish.as_object_mut()) {
                wish.insert("name".into(), name.into());
            }
            (client.send_json(Method::POST, "/api/v0/organisations", &wish).await?, made)
        }
        Word::Limits(ceilings) => {
            let change = json!({ "ceilings": ceilings.limits.change()? });
            let path = path(&client, Some(ceilings.organisation)).await?;
            (client.send_json(Method::PATCH, &path, &change).await?, one)
        }
        Word::Members(which) => {
            let path = format!("{}/members", path(&client, which.organisation).await?);
            (client.read(&path).await?, members)
        }
        Word::AddMember(new) => {
            let path = format!("{}/members", path(&client, new.organisation).await?);
            (client.send_json(Method::POST, &path, &json!({ "name": new.name, "role": new.role })).await?, member)
        }
        Word::Role(Role { whom, role }) => {
            let path = format!("{}/members/{}", path(&client, whom.organisation).await?, whom.member);
            (client.send_json(Method::PATCH, &path, &json!({ "role": role })).await?, member)
        }
        Word::RemoveMember(whom) => {
            let path = format!("{}/members/{}", path(&client, whom.organisation).await?, whom.member);
            client.refuse_errors(client.send(client.request(Method::DELETE, &path)).await?).await?;
            screen::remark("removed; its keys work no more\n");
            return Ok(Outcome::Done);
        }
    };
    screen::show(&answer, args.json, render)
}

/// The path of an organisation: of this one, or of the key's own.
async fn path(client: &Client, organisation: Option<String>) -> Result<String> {
    let id = match organisation {
        Some(id) => id,
        None => text(&client.read("/api/v0/keys/current").await?, "organisation"),
    };
    Ok(format!("/api/v0/organisations/{id}"))
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[("organisation", Align::Left), ("name", Align::Left), ("", Align::Left)]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let operator = item.get("operator").and_then(Value::as_bool) == Some(true);
        table.row([text(item, "id"), text(item, "name"), if operator { "operator".into() } else { String::new() }]);
    }
    table.render()
}

fn one(item: &Value) -> String {
    let since = item.get("created_at_ms").and_then(Value::as_u64).map(number::instant).unwrap_or_default();
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
    for (name, value) in [("organisation", text(item, "id")), ("name", text(item, "name")), ("since (UTC)", since)] {
        table.row([name.to_owned(), value]);
    }
    format!("{}\nceilings of its projects\n{}", table.render(), limits::render(item.get("ceilings"), |_| None))
}

fn made(answer: &Value) -> String {
    let organisation = answer.get("organisation").cloned().unwrap_or_default();
    screen::remark(&format!(
        "organisation {} with the project {}; this is its first key (compute, admin), shown once:\n",
        text(&organisation, "id"),
        text(answer, "project")
    ));
    format!("{}\n", answer.pointer("/key/key").and_then(Value::as_str).unwrap_or_default())
}

fn members(answer: &Value) -> String {
    let mut table = Table::new(&[("member", Align::Left), ("name", Align::Left), ("role", Align::Left)]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        table.row([text(item, "id"), text(item, "name"), text(item, "role")]);
    }
    if table.is_empty() {
        "no members yet: keys that name nobody are the organisation's own\n".into()
    } else {
        table.render()
    }
}

fn member(item: &Value) -> String {
    members(&json!({ "items": [item] }))
}
