//! `forgepool ledger`: a project's transactions, and whether an exported chain holds.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forge_contract::Digest;
use forge_lifecycle::books::Transaction;
use forge_lifecycle::books::chain::{Head, Line, Walk};
use forge_lifecycle::bundle;
use forge_lifecycle::bundle::key::Key;
use forge_lifecycle::bundle::leaf::TRANSACTION;
use serde_json::{Value, json};

use super::{Export, count, download, millionths, open, report, text, with};
use crate::client::Client;
use crate::exit::Outcome;
use crate::screen;
use crate::table::{Align, Table};
use crate::target::TargetArgs;
use crate::verify::is_signed;

/// Longest line of an exported chain, bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Shows the project's transactions, exports the chain they stand in, and checks an export without a network.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    word: Option<Word>,
    /// Only transactions after this number
    #[arg(long, default_value_t = 0, value_name = "N")]
    after: u64,
    /// At most this many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
    /// Only those about this job
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    /// Only those of this kind: opening, grant, hold, raise, settle, refund, correction, payable, forfeit, payout
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Every project's and every agent's (scope `admin`)
    #[arg(long, global = true)]
    all: bool,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    export: Export,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Writes the whole chain to a file: of the project's transactions all of it, of others the digest alone
    Chain {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Checks an exported chain without a network: nothing was changed, taken out, put in or moved, every transaction
    /// sums to 0, and the hub signed the end of it
    Verify {
        /// The file that `ledger chain` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The public key of the hub you expect: 43 characters, as `GET /` of a hub names it
        #[arg(long, allow_hyphen_values = true, value_name = "KEY", env = "FORGEPOOL_HUB_KEY")]
        hub_key: Option<Key>,
        /// A job's evidence: what was posted for it has to stand in the chain. May be given several times
        #[arg(long, value_name = "BUNDLE")]
        evidence: Vec<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// The connection, the hub's refusal, or a file that cannot be read or written.
pub async fn run(args: Args) -> Result<Outcome> {
    match &args.word {
        Some(Word::Verify { file, hub_key, evidence }) => {
            return verify(file, hub_key.as_ref(), evidence, args.json);
        }
        Some(Word::Chain { file }) => {
            let client = Client::new(args.target.resolve()?)?;
            download(&client, &format!("/api/v0/ledger/chain?all={}", args.all), file).await?;
            return Ok(Outcome::Done);
        }
        None => {}
    }
    let client = Client::new(args.target.resolve()?)?;
    let path = format!("/api/v0/ledger?after={}&limit={}&all={}", args.after, args.limit, args.all);
    let path = with(path, &[("job", &args.job), ("kind", &args.kind)]);
    report(&client, (&path, ""), (&args.export, args.json), render).await
}

fn render(answer: &Value) -> String {
    let mut table = Table::new(&[
        ("number", Align::Right),
        ("when (UTC)", Align::Left),
        ("what", Align::Left),
        ("job or note", Align::Left),
        ("account", Align::Left),
        ("credits", Align::Right),
    ]);
    for item in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let transaction = item.get("transaction").cloned().unwrap_or_default();
        let when: String = text(item, "at").chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect();
        let about = match (text(&transaction, "job"), text(&transaction, "note")) {
            (job, note) if job.is_empty() => note,
            (job, _) => job,
        };
        let mut head = [count(item, "seq").to_string(), when, text(&transaction, "kind"), about];
        let postings = transaction.get("postings").and_then(Value::as_array).cloned().unwrap_or_default();
        if postings.is_empty() {
            let [number, when, what, about] = head;
            table.row([number, when, what, about, "(nothing moves)".to_owned(), String::new()]);
            continue;
        }
        for posting in &postings {
            let [number, when, what, about] = std::mem::take(&mut head);
            let micro = text(posting, "micro").parse().unwrap_or(0);
            table.row([number, when, what, about, account(&text(posting, "account")), millionths(micro)]);
        }
    }
    let head = answer.get("head").cloned().unwrap_or_default();
    let mut shown = if table.is_empty() { "nothing was posted\n".to_owned() } else { table.render() };
    shown.push_str(&format!("\nhead: number {}, link {}\n", count(&head, "seq"), text(&head, "link")));
    if let Some(next) = answer.get("next").and_then(Value::as_str) {
        shown.push_str(&format!("more: {next}; --csv or --parquet writes all\n"));
    }
    shown
}

/// An account's name, long identifiers cut: the job stands beside it.
fn account(name: &str) -> String {
    match name.split_once(':') {
        Some((kind @ ("held" | "payable"), agent)) => {
            format!("{kind}:{}...", agent.chars().take(12).collect::<String>())
        }
        Some(("hold", _)) => "hold".to_owned(),
        _ => name.to_owned(),
    }
}

/// What a walk along an exported chain found.
struct Walked {
    walk: Walk,
    head: Head,
    /// The transactions of the bundles asked for, with their numbers in the chain.
    found: Vec<Option<u64>>,
}

fn verify(file: &Path, known: Option<&Key>, evidence: &[PathBuf], as_json: bool) -> Result<Outcome> {
    let wanted = evidence.iter().map(|bundle| posted(bundle)).collect::<Result<Vec<Digest>>>()?;
    let checked = walk(BufReader::new(open(file)?), &wanted).and_then(|walked| {
        if let Some(known) = known.filter(|known| **known != walked.head.public_key) {
            bail!("signed by {}, not by the hub's key {known}", walked.head.public_key);
        }
        for (bundle, number) in evidence.iter().zip(&walked.found) {
            if number.is_none() {
                bail!("what was posted by {} is not in the chain", bundle.display());
            }
        }
        Ok(walked)
    });
    let (ok, said) = match &checked {
        Ok(Walked { walk, head, .. }) => {
            let signer = match known {
                Some(_) => "the hub whose key was given signed it".to_owned(),
                None => format!(
                    "WHO signed it was not checked: give the hub's key with --hub-key ({} did)",
                    head.public_key
                ),
            };
            let lines = head.seq;
            (true, format!("the chain holds: {lines} transactions, {} of them whole; {signer}", walk.seen))
        }
        Err(error) => (false, format!("the chain DOES NOT HOLD: {error:#}")),
    };
    let head = checked.as_ref().ok().map(|walked| &walked.head);
    let found = checked.as_ref().ok().map(|walked| &walked.found);
    screen::print(&match as_json {
        true => screen::json(&json!({"ok": ok, "detail": said, "head": head, "evidence": found})),
        false => format!("{said}\n"),
    })?;
    Ok(if ok { Outcome::Done } else { Outcome::Unsound })
}

/// The digest of what a bundle says was posted.
fn posted(file: &Path) -> Result<Digest> {
    let bytes = crate::verify::read(file)?;
    let bundle = bundle::decode(&bytes).with_context(|| format!("{} is no evidence bundle", file.display()))?;
    let content = bundle.content(TRANSACTION);
    let content = content.with_context(|| format!("{} is from before there were books", file.display()))?;
    let transaction: Transaction =
        serde_json::from_slice(content).with_context(|| format!("{}: its transaction", file.display()))?;
    Ok(transaction.digest())
}

/// Walks along a chain as `ledger chain` wrote it, line by line.
fn walk(mut lines: impl std::io::BufRead, wanted: &[Digest]) -> Result<Walked> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Entry {
        Head { head: Head },
        Line(Line),
    }
    let (mut walk, mut found) = (Walk::default(), vec![None; wanted.len()]);
    let mut number = 0u64;
    loop {
        number += 1;
        let mut line = String::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        if read.with_context(|| format!("line {number} of the file"))? == 0 {
            bail!("the file ends without the signed head: the end is missing");
        }
        let entry: Entry =
            serde_json::from_str(&line).with_context(|| format!("line {number} of the file is no such line"))?;
        match entry {
            Entry::Line(line) => {
                walk.step(&line)?;
                for (place, _) in found.iter_mut().zip(wanted).filter(|(_, digest)| **digest == line.digest) {
                    *place = Some(line.seq);
                }
            }
            Entry::Head { head } => {
                walk.end(&head, &is_signed)?;
                let mut rest = String::new();
                lines.take(LINE_BYTES_MAX).read_to_string(&mut rest)?;
                if !rest.trim().is_empty() {
                    bail!("something follows the signed head");
                }
                return Ok(Walked { walk, head, found });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};
    use forge_lifecycle::books::Stamp;
    use forge_lifecycle::books::chain::{ROOT, link};

    fn exported() -> Vec<String> {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (mut lines, mut last) = (Vec::new(), ROOT);
        for seq in 1..=5u64 {
            let stamp = Stamp { at_ms: seq, salt: u128::from(seq) };
            let transaction = Transaction::grant(stamp, "a", seq * 10, "r").unwrap();
            let digest = transaction.digest();
            last = link(&last, seq, &digest);
            let line = Line { seq, digest, transaction: (seq != 3).then_some(transaction) };
            lines.push(serde_json::to_string(&line).unwrap());
        }
        let public = Key(key.verifying_key().to_bytes());
        let head = Head::seal(5, last, 9, public, |root| key.sign(root).to_bytes());
        lines.push(json!({ "head": head }).to_string());
        lines
    }

    fn holds(lines: &[String]) -> Result<Walked> {
        walk(BufReader::new(lines.join("\n").as_bytes()), &[])
    }

    #[test]
    fn an_export_holds_until_somebody_touches_it() {
        let lines = exported();
        let walked = holds(&lines).unwrap();
        assert_eq!((walked.head.seq, walked.walk.seen), (5, 4));
        for at in 0..lines.len() {
            let mut dropped = lines.clone();
            dropped.remove(at);
            assert!(holds(&dropped).is_err(), "dropped {at}");
            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            assert!(holds(&twice).is_err(), "twice {at}");
            if at > 0 {
                let mut swapped = lines.clone();
                swapped.swap(at - 1, at);
                assert!(holds(&swapped).is_err(), "swapped {at}");
            }
            // Any digit flipped, wherever it stands.
            for (place, found) in lines[at].char_indices().filter(|(_, found)| found.is_ascii_digit()) {
                let mut flipped = lines.clone();
                let other = if found == '9' { "8" } else { "9" };
                flipped[at].replace_range(place..=place, other);
                assert!(holds(&flipped).is_err(), "line {at}, place {place}: {}", flipped[at]);
            }
        }
    }

    #[test]
    fn transactions_are_shown_posting_by_posting() {
        let shown = render(&json!({
            "items": [
                {"seq": 7, "at": "2026-11-30T02:00:00.000Z", "transaction": {"kind": "hold", "job": "J", "postings":
                    [{"account": "project:a", "micro": "-1500000"}, {"account": "hold:J", "micro": "1500000"}]}},
                {"seq": 8, "at": "2026-11-30T02:00:01.000Z", "transaction": {"kind": "settle", "job": "T", "postings": []}}
            ],
            "head": {"seq": 9, "link": "abc"}
        }));
        for part in ["2026-11-30 02:00:00", "project:a", "-1.5", "(nothing moves)", "head: number 9, link abc"] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}
