//! `forgepool kernel push`: a component to the hub, and on from where a connection broke.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use forge_contract::Digest;
use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::exit::Outcome;
use crate::kernel::holding::{self, Holding, shown};
use crate::kernel::show::Label;
use crate::target::TargetArgs;
use crate::{number, screen};

/// How often a broken upload is taken up again.
const ATTEMPTS_MAX: u32 = 6;
/// Pause before the first of them, ms; each next one is twice as long.
const PAUSE_MS: u64 = 100;
/// Pause between two questions whether a kernel is admitted, ms.
const POLL_MS: u64 = 100;

/// Uploads a kernel to the hub, which admits it by parsing; then a verifier runs its known answers.
///
/// `name@version` means these bytes for ever: other bytes under the same name and version are refused. Uploading the
/// same bytes again changes nothing. An upload that breaks goes on where it stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A component's file, or a project's folder, which is built first [default: the folder you stand in]
    #[arg(value_name = "FILE|DIR")]
    path: Option<PathBuf>,
    /// Wait until it is admitted or refused
    #[arg(long)]
    wait: bool,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
///
/// # Errors
/// The project does not build, the file is no kernel, the connection, or the hub's refusal.
pub async fn run(args: Args) -> Result<Outcome> {
    let holding = holding::open(args.path.as_deref())?;
    // The hub would say the same, after the upload.
    forge_lifecycle::admit::inspect_upload(&holding.component)
        .with_context(|| format!("{}: `forgepool kernel check` tells more", shown(&holding.file)))?;
    let client = Client::new(args.target.resolve()?)?;
    let mut kernel = upload(&client, &holding).await?;
    let label = label(&kernel)?;
    if args.wait {
        kernel = settled(&client, &label, kernel).await?;
    }
    screen::print(&if args.json { screen::json(&kernel) } else { told(&label, &kernel, &holding) })?;
    Ok(if state(&kernel) == "refused" { Outcome::KernelUnfit } else { Outcome::Done })
}

fn state(kernel: &Value) -> &str {
    kernel.get("state").and_then(Value::as_str).unwrap_or("")
}

fn label(kernel: &Value) -> Result<Label> {
    let name = kernel.get("name").and_then(Value::as_str).context("the hub's answer names no kernel")?;
    let version = kernel.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    Ok(Label::new(name, version.context("the hub's answer names no version")?))
}

/// Sends the bytes; where the connection breaks, asks what arrived and sends the rest.
async fn upload(client: &Client, holding: &Holding) -> Result<Value> {
    let bytes = bytes::Bytes::from(holding.component.clone());
    let (mut offset, mut attempt) = (0, 0);
    loop {
        let path = format!("/api/v0/kernels?digest={}&bytes={}&offset={offset}", holding.digest, bytes.len());
        let rest = bytes.slice(offset.min(bytes.len())..);
        let error = match client.upload(&path, "application/wasm", rest).await {
            Ok(kernel) => return Ok(kernel),
            Err(error) => error,
        };
        let arrived = match &error {
            ClientError::Unreachable { .. } => arrived(client, &holding.digest).await.unwrap_or(Some(offset)),
            // Another offset than ours: an earlier upload left a part.
            ClientError::Refused(problem) if problem.status == 409 => {
                arrived(client, &holding.digest).await?.filter(|arrived| *arrived != offset)
            }
            _ => None,
        };
        attempt += 1;
        match arrived {
            Some(arrived) if attempt < ATTEMPTS_MAX => offset = arrived,
            _ => return Err(error.into()),
        }
        screen::remark(&format!("the upload broke; going on at byte {} of {}\n", offset, bytes.len()));
        tokio::time::sleep(Duration::from_millis(PAUSE_MS << attempt)).await;
    }
}

/// Bytes of an unfinished upload that the hub holds; 0 where it knows of none.
async fn arrived(client: &Client, digest: &Digest) -> Result<Option<usize>, ClientError> {
    match client.read(&format!("/api/v0/uploads/{digest}")).await {
        Ok(upload) => Ok(upload.get("offset").and_then(Value::as_u64).and_then(|offset| usize::try_from(offset).ok())),
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

/// Asks until the kernel's trial is over.
async fn settled(client: &Client, label: &Label, mut kernel: Value) -> Result<Value> {
    let mut told = false;
    while state(&kernel) == "pending" {
        if !told {
            screen::remark("pending: a verifier compiles it and runs its known answers\n");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        kernel = client.read(&label.path()).await?;
    }
    Ok(kernel)
}

fn told(label: &Label, kernel: &Value, holding: &Holding) -> String {
    let mut text = format!(
        "kernel  {label}\ndigest  {}\nsize    {}\nstate   {}\n",
        holding.digest,
        number::bytes(holding.component.len() as u64),
        state(kernel)
    );
    if let Some(reason) = kernel.get("reason").and_then(Value::as_str) {
        text.push_str(&format!("reason  {reason}\n"));
    }
    let contract = holding.project.as_ref().map(|folder| folder.join("contract.json")).filter(|path| path.is_file());
    let next = match (state(kernel), contract) {
        ("refused", _) => {
            "forgepool kernel check        it runs here what the verifier ran; mend it and push again: a refused version is free"
                .to_owned()
        }
        ("pending", _) => format!("forgepool kernel show {label}"),
        (_, Some(contract)) => format!("forgepool run {}", shown(&contract)),
        (_, None) => contract_line(label, &holding.component),
    };
    text + &format!("\nNext:\n  {next}\n")
}

/// A contract to begin with, on one line.
fn contract_line(label: &Label, component: &[u8]) -> String {
    let Ok(admitted) = forge_lifecycle::admit::inspect(component) else { return String::new() };
    let manifest = admitted.manifest;
    let Some((profile, declared)) = manifest.profiles.iter().next() else { return String::new() };
    let example = declared.args.pointer("/examples/0").cloned().unwrap_or_else(|| json!({}));
    let contract = json!({
        "ctx": {}, "op": { "name": manifest.name, "version": manifest.version, "profile": profile },
        "seed": { "mode": "derived" }, "policy": {}, "args": example,
    });
    let quoted = contract.to_string().replace('\'', "'\\''");
    format!("echo '{quoted}' | forgepool run -        # a job on {label}")
}
