//! `forgepool doctor`: what this machine offers, what is missing, and what that means.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use anyhow::Result;
use forge_contract::Digest;
use forge_sandbox::{CageLevel, Worker, engine_profile};

use crate::client::{Client, ClientError};
use crate::exit::Outcome;
use crate::table::{Align, Table};
use crate::target::{TargetArgs, data_dir_default};
use crate::{kernels, number, screen, up};

/// Addresses that `up` uses when nothing is said.
const HTTP_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const QUIC_DEFAULT: ([u8; 4], u16) = ([127, 0, 0, 1], 4433);
/// Memory below which a worker may not get what a kernel is allowed to ask for.
const MEMORY_BYTES_WANTED: u64 = 1 << 30;

/// Looks at this machine and at the hub, and says what is missing and what that means.
///
/// Ends with 0 where everything that the pool needs is there, and with 7 where something is not.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Good,
    /// Works, but less well or less safely.
    Note,
    /// Does not work.
    Bad,
}

#[derive(Debug, Default)]
struct Findings {
    rows: Vec<(Verdict, &'static str, String)>,
}

impl Findings {
    fn add(&mut self, verdict: Verdict, what: &'static str, said: impl Into<String>) {
        self.rows.push((verdict, what, said.into()));
    }

    fn render(&self) -> String {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for (verdict, what, said) in &self.rows {
            let mark = match verdict {
                Verdict::Good => "ok",
                Verdict::Note => "note",
                Verdict::Bad => "BAD",
            };
            table.row([mark.to_owned(), (*what).to_owned(), said.clone()]);
        }
        table.render()
    }

    fn outcome(&self) -> Outcome {
        if self.rows.iter().any(|row| row.0 == Verdict::Bad) { Outcome::Unfit } else { Outcome::Done }
    }
}

/// Runs the command.
///
/// # Errors
/// Stdout cannot be written to.
pub async fn run(args: Args) -> Result<Outcome> {
    let mut findings = Findings::default();
    machine(&mut findings);
    cage(&mut findings).await;
    engine(&mut findings);
    built_in(&mut findings);
    data(&mut findings, args.target.data.as_deref());
    let reachable = hub(&mut findings, &args.target).await;
    if !reachable {
        ports(&mut findings);
    }
    let outcome = findings.outcome();
    let verdict = match outcome {
        Outcome::Done => "Ready: `forgepool quickstart` shows it.\n",
        _ => "Something that the pool needs is missing: see the lines marked BAD.\n",
    };
    screen::print(&format!("{}\n{verdict}", findings.render()))?;
    Ok(outcome)
}

fn machine(findings: &mut Findings) {
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let known = cfg!(any(target_os = "linux", target_os = "macos"));
    findings.add(if known { Verdict::Good } else { Verdict::Note }, "system", system);
    findings.add(Verdict::Good, "cores", up::cores().to_string());
    match memory_bytes() {
        Some(bytes) if bytes < MEMORY_BYTES_WANTED => {
            let said =
                format!("{}: kernels may ask for up to 512 MiB per unit, and each core runs one", number::bytes(bytes));
            findings.add(Verdict::Note, "memory", said);
        }
        Some(bytes) => findings.add(Verdict::Good, "memory", number::bytes(bytes)),
        None => findings.add(Verdict::Note, "memory", "this system does not say how much there is"),
    }
}

#[cfg(target_os = "linux")]
fn memory_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).checked_mul(info.totalram)
}

#[cfg(not(target_os = "linux"))]
fn memory_bytes() -> Option<u64> {
    None
}

/// Starts a real worker and asks it what holds it.
async fn cage(findings: &mut Findings) {
    let spawned = match std::env::current_exe() {
        Ok(program) => {
            Worker::spawn(&program, &["__worker".into()], CageLevel::Available).await.map_err(|e| e.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let worker = match spawned {
        Ok(worker) => worker,
        Err(error) => return findings.add(Verdict::Bad, "cage", format!("no worker process comes up: {error}")),
    };
    let report = worker.cage();
    let held: Vec<&str> = report.in_force().map(|guard| guard.name()).collect();
    if report.is_sound() {
        findings.add(Verdict::Good, "cage", held.join(" "));
    } else {
        let said = format!(
            "{}; without Landlock and seccomp this machine refuses kernels it is not told to trust",
            held.join(" ")
        );
        findings.add(Verdict::Note, "cage", said);
    }
    for (guard, reason) in report.missing() {
        findings.add(Verdict::Note, "not in the cage", format!("{}: {reason}", guard.name()));
    }
}

fn engine(findings: &mut Findings) {
    findings.add(Verdict::Good, "engine profile", engine_profile().to_string());
}

fn built_in(findings: &mut Findings) {
    if kernels::BUILT_IN.is_empty() {
        let said = "none is built into this program: workloads/dist was empty when it was compiled";
        return findings.add(Verdict::Bad, "kernels", said);
    }
    for (name, bytes) in kernels::BUILT_IN {
        let digest = Digest::of(bytes);
        if kernels::is_pinned(bytes) {
            findings.add(Verdict::Good, "kernel", format!("{name} {digest}"));
        } else {
            findings.add(Verdict::Bad, "kernel", format!("{name} {digest} is not what workloads/pins.toml names"));
        }
    }
}

fn data(findings: &mut Findings, given: Option<&Path>) {
    let dir = match given.map_or_else(data_dir_default, |dir| Ok(dir.to_owned())) {
        Ok(dir) => dir,
        Err(error) => return findings.add(Verdict::Bad, "data directory", error.to_string()),
    };
    // Nothing is created for a question: the nearest directory that exists answers it.
    let nearest = dir.ancestors().find(|path| path.is_dir());
    match nearest.map(tempfile::tempfile_in) {
        Some(Ok(_)) => findings.add(Verdict::Good, "data directory", dir.display().to_string()),
        Some(Err(error)) => findings.add(Verdict::Bad, "data directory", format!("{}: {error}", dir.display())),
        None => findings.add(Verdict::Bad, "data directory", format!("{}: no part of it exists", dir.display())),
    }
}

fn ports(findings: &mut Findings) {
    let (http, quic) = (SocketAddr::from(HTTP_DEFAULT), SocketAddr::from(QUIC_DEFAULT));
    let tries = [
        ("HTTP port", http, TcpListener::bind(http).map(drop), "--http"),
        ("QUIC port", quic, UdpSocket::bind(quic).map(drop), "--quic"),
    ];
    for (what, address, bound, flag) in tries {
        match bound {
            Ok(()) => findings.add(Verdict::Good, what, format!("{address} is free")),
            Err(error) => {
                findings.add(
                    Verdict::Note,
                    what,
                    format!("{address}: {error}; `forgepool up {flag} 127.0.0.1:0` takes another"),
                );
            }
        }
    }
}

/// Whether a hub answers. None running is no fault of the machine.
async fn hub(findings: &mut Findings, target: &TargetArgs) -> bool {
    let Ok(target) = target.resolve() else {
        findings.add(Verdict::Note, "hub", "none is known: `forgepool up` starts one");
        return false;
    };
    let url = target.url.clone();
    let answer = match Client::new(target) {
        Ok(client) => client.read("/api/v0/jobs?limit=1").await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(_) => findings.add(Verdict::Good, "hub", format!("{url} answers and knows the key")),
        Err(ClientError::Refused(problem)) => {
            findings.add(Verdict::Note, "hub", format!("{url} answers, but: {}", problem.detail))
        }
        Err(error) => {
            findings.add(Verdict::Note, "hub", format!("{error} (`forgepool up` starts one)"));
            return false;
        }
    }
    true
}
