//! What a contract names: a kernel, arrays, content of the project. Looked up once, pinned, and held from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use forge_contract::envelope::Envelope;
use forge_contract::vmem::Reference;
use forge_contract::{Digest, FailureCode};
use forge_lifecycle::plan::{self, Kernel, Plan, PlannedSource};
use serde_json::Value;

use super::App;
use super::auth::Caller;
use super::problem::Problem;
use crate::store::blobs::Hold;
use crate::tenancy::quota;

/// A contract with its plan.
pub(super) struct Planned {
    /// The contract; an array that it names has its version and digest in it.
    pub(super) envelope: Envelope,
    /// The plan, inputs resolved.
    pub(super) plan: Plan,
    /// What the client should know of the kernel.
    pub(super) notices: Vec<String>,
    /// The files that the job will run and read.
    pub(super) held: Arc<Vec<Hold>>,
}

/// Plans a contract of the caller's project, with what the project adds. Nothing is recorded.
pub(super) async fn planned(app: &App, caller: &Caller, envelope: Envelope) -> Result<Planned, Problem> {
    let project = &*caller.project;
    caller.binding().check(&envelope.policy.requires)?;
    let entry = app.registry.find(project, &envelope.op)?;
    let mut sizes = BTreeMap::new();
    // Of the arrays at first; they are looked at again once they are held.
    let envelope = pinned(app, project, envelope, &entry.kernel, &mut sizes).await?;
    let mut plan = plan::plan(&envelope, &entry.kernel)?;
    plan.array_names(envelope.artifacts.vmem.as_ref())?;
    // Before the records are read: what they name is not freed meanwhile.
    let held = plan.content().into_iter().map(|digest| app.blobs.hold(digest)).collect();
    let arrays: Vec<Digest> = sizes.keys().copied().collect();
    if let Some(gone) = app.store.unnamed(&arrays).await?.first() {
        let detail = format!("args: the array with the digest {gone} was deleted while the contract was read");
        return Err(Problem::of(FailureCode::RequestNotFound, detail).at("/args"));
    }
    for source in plan.stages.iter().flat_map(|stage| &stage.inputs).map(|input| &input.source) {
        if let PlannedSource::Content { digest, .. } = source
            && let Some(blob) = app.store.blob(project, digest).await?
        {
            sizes.insert(*digest, blob.bytes);
        }
    }
    plan.resolve(|digest| sizes.get(digest).copied())?;
    plan.terms = quota::terms(caller.limits(), caller.binding());
    Ok(Planned { envelope, plan, notices: entry.notice().into_iter().collect(), held: Arc::new(held) })
}

/// The contract with version and digest beside the name of every array that an input is given as.
async fn pinned(
    app: &App,
    project: &str,
    envelope: Envelope,
    kernel: &Kernel,
    sizes: &mut BTreeMap<Digest, u64>,
) -> Result<Envelope, Problem> {
    let Some(profile) = kernel.manifest.profiles.get(&envelope.op.profile) else { return Ok(envelope) };
    let named = plan::input_arguments(profile).filter(|name| envelope.args.get(*name).is_some_and(Value::is_object));
    let named: Vec<String> = named.map(str::to_owned).collect();
    if named.is_empty() {
        return Ok(envelope);
    }
    let unreadable = || Problem::of(FailureCode::AggregationStorage, "the contract cannot be written down");
    let mut contract: Value = serde_json::from_str(envelope.canonical()).map_err(|_| unreadable())?;
    for argument in named {
        let Some(value) = envelope.args.get(&argument) else { continue };
        let (found, bytes) = looked_up(app, project, &argument, plan::reference(&argument, value)?).await?;
        sizes.extend(found.digest.map(|digest| (digest, bytes)));
        let args = contract.get_mut("args").and_then(Value::as_object_mut).ok_or_else(unreadable)?;
        args.insert(argument, found.value());
    }
    Ok(Envelope::parse(contract.to_string().as_bytes())?)
}

/// A reference with version and digest, and the size of its file.
async fn looked_up(app: &App, project: &str, argument: &str, asked: Reference) -> Result<(Reference, u64), Problem> {
    let pointer = format!("/args/{}", argument.replace('~', "~0").replace('/', "~1"));
    let refused = |code, detail: String| Problem::of(code, format!("args.{argument}: {detail}")).at(&pointer);
    let Reference { name, version, .. } = &asked;
    let row = app.store.array(project, name, *version).await?;
    let row = row.filter(|row| row.digest.is_some()).ok_or_else(|| {
        let version = version.map_or_else(String::new, |version| format!(" version {version}"));
        let detail = format!("there is no array '{name}'{version} in this project; `forgepool vmem list` shows them");
        refused(FailureCode::RequestNotFound, detail)
    })?;
    if asked.digest.is_some() && asked.digest != row.digest {
        let detail = format!("version {} of '{name}' has another digest than the one given; leave it out", row.version);
        return Err(refused(FailureCode::RequestConflict, detail));
    }
    Ok((Reference { name: row.name, version: Some(row.version), digest: row.digest }, row.bytes))
}
