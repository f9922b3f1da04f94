//! An agent that speaks the true protocol and lies on cue, for tests; many identities fit into one process.
//!
//! `--hub ADDRESS:PORT --manner MANNER[,after=N][,rate=PPM][,times=N][,count=N]...`, with one enrolment token for each
//! identity in `FORGEPOOL_ENROL_TOKENS`, separated by commas. `--least-ms N`: a shard takes at least this long.
//! `--shared DIRECTORY`: where accomplices agree. `--seed N`: keys and cues. It says who it is in one line of JSON once
//! all identities have joined, and ends when its stdin does.

mod figures;
mod hours;
mod manner;
mod member;
mod wire;
mod workshop;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use forge_protocol::EnrolToken;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use manner::Conduct;
use member::{House, Member};
use workshop::Workshop;

#[tokio::main]
async fn main() -> Result<()> {
    let (house, conducts) = arguments()?;
    let (house, members) = (Arc::new(house), conducts.iter().map(|conduct| u64::from(conduct.count)).sum::<u64>());
    let tokens = tokens()?;
    ensure!(tokens.len() as u64 == members, "{} tokens for {members} identities", tokens.len());
    let each = conducts.iter().flat_map(|conduct| std::iter::repeat_n(*conduct, conduct.count as usize));
    let (tell, mut joined) = mpsc::unbounded_channel();
    let mut agents = Vec::new();
    for (number, (conduct, token)) in (0..).zip(each.zip(tokens)) {
        let member = Member::new(Arc::clone(&house), number, conduct, token);
        agents.push(member.agent());
        tokio::spawn(member.live(tell.clone()));
    }
    let mut missing: std::collections::BTreeSet<u64> = (0..members).collect();
    let ended = end_of_stdin();
    tokio::pin!(ended);
    while !missing.is_empty() {
        tokio::select! {
            number = joined.recv() => drop(number.map(|number| missing.remove(&number))),
            () = &mut ended => return Ok(()),
        }
    }
    announce(&serde_json::json!({ "agents": agents }).to_string());
    ended.await;
    Ok(())
}

fn arguments() -> Result<(House, Vec<Conduct>)> {
    let (mut hub, mut shared, mut least_ms, mut seed, mut conducts) = (None, None, 0, 1, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--hub" => hub = Some(value.parse()?),
            "--manner" => conducts.push(value.parse()?),
            "--least-ms" => least_ms = value.parse()?,
            "--shared" => shared = Some(PathBuf::from(value)),
            "--seed" => seed = value.parse()?,
            _ => bail!("{name} is no argument"),
        }
    }
    let hub = hub.context("--hub is missing")?;
    let house = House { hub, workshop: Workshop::default(), shared, least: Duration::from_millis(least_ms), seed };
    Ok((house, conducts))
}

fn tokens() -> Result<Vec<EnrolToken>> {
    let text = std::env::var("FORGEPOOL_ENROL_TOKENS").context("FORGEPOOL_ENROL_TOKENS is missing")?;
    text.split(',').map(|token| Ok(token.parse()?)).collect()
}

/// Completes when whoever started this is gone.
async fn end_of_stdin() {
    let (mut stdin, mut byte) = (tokio::io::stdin(), [0]);
    while stdin.read(&mut byte).await.is_ok_and(|bytes| bytes > 0) {}
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
fn announce(line: &str) {
    println!("{line}");
}
