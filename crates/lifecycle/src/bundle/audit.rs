//! Everything about a bundle that can be checked without running the kernel: what it says, against itself.
//!
//! What a lie told everywhere alike would leave consistent, only a second run finds: [`crate::replay`].

use std::collections::{BTreeMap, BTreeSet};

use forge_contract::failure::Blame;
use forge_contract::fragment::Fragment;
use forge_contract::report::result_digest;
use forge_contract::{AgentId, Digest, JobId, LeaseId};
use serde::Serialize;
use serde_json::Value;

use super::key::{Key, Verify};
use super::leaf::{self, ExecutionRecord, Recorded, ShardRecord};
use super::{Bundle, signed};
use crate::books::price::{Charge, burned};
use crate::books::{Account, Posting, Transaction};
use crate::ledger::{Bill, Rates, bill};
use crate::plan::{Kernel, Plan, StagePlan};
use crate::verify::VerificationReport;
use crate::{admit, plan, reduce, replay};

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it holds.
    pub result: Found,
    /// What was seen, or what is wrong and where.
    pub detail: String,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// The bundle does not hold what it needs.
    Skipped,
}

impl Found {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a check does not hold, or was not made.
pub(super) enum Not {
    Held(String),
    Made(String),
}

pub(super) type Checked = Result<String, Not>;

pub(super) fn wrong<T>(detail: impl Into<String>) -> Result<T, Not> {
    Err(Not::Held(detail.into()))
}

fn check(name: &'static str, checked: Checked) -> Check {
    let (result, detail) = match checked {
        Ok(detail) => (Found::Ok, detail),
        Err(Not::Held(detail)) => (Found::Failed, detail),
        Err(Not::Made(detail)) => (Found::Skipped, detail),
    };
    Check { name, result, detail }
}

/// Checks a bundle whose form is right. `known` is the hub's key, where the auditor knows it from elsewhere.
///
/// Order: from the file to what it means; each check is made whatever the others found, where it can be.
#[must_use]
pub fn audit(bundle: &Bundle<'_>, known: Option<&Key>, verify: Verify<'_>) -> Vec<Check> {
    let mut checks = vec![
        check("index", Ok(format!("{} leaves, root {}", bundle.index.leaves.len(), bundle.index.root))),
        check("contents", contents(bundle)),
        check("signature", signature(bundle, known, verify)),
    ];
    let recorded = match Recorded::read(bundle) {
        Ok(recorded) => recorded,
        Err(error) => {
            checks.push(check("leaves", wrong(error.to_string())));
            return checks;
        }
    };
    checks.push(check("component", component(bundle, &recorded)));
    checks.push(check("plan", planned(bundle, &recorded)));
    checks.push(check("units", units(&recorded)));
    checks.push(check("executions", executions(&recorded)));
    checks.push(check("agents", signed::agents(&recorded, verify)));
    checks.push(check("verification", verification(&recorded)));
    checks.push(check("output", output(&recorded)));
    checks.push(check("ledger", ledger(bundle, &recorded)));
    if recorded.replay.is_some() {
        checks.push(check("replay", repeated(&recorded)));
    }
    checks
}

fn contents(bundle: &Bundle<'_>) -> Checked {
    let changed: Vec<&str> = bundle.changed().iter().map(|entry| entry.name.as_str()).collect();
    let absent: Vec<&str> =
        bundle.leaves().filter(|(_, content)| content.is_none()).map(|(entry, _)| entry.name.as_str()).collect();
    if !changed.is_empty() {
        return wrong(format!("changed since they were hashed: {}", changed.join(", ")));
    }
    Ok(match absent.is_empty() {
        true => "every leaf has its digest".to_owned(),
        false => format!("every leaf that is there has its digest; left out: {}", absent.join(", ")),
    })
}

fn signature(bundle: &Bundle<'_>, known: Option<&Key>, verify: Verify<'_>) -> Checked {
    let signer = &bundle.index.signature.public_key;
    if let Some(known) = known.filter(|known| *known != signer) {
        return wrong(format!("signed by {signer}, not by the hub's key {known}"));
    }
    if !bundle.index.is_signed(verify) {
        return wrong(format!("root or signature was changed: the signature is not {signer}'s over the root"));
    }
    Ok(match known {
        Some(_) => format!("signed by {signer}, the key given"),
        None => format!("signed by {signer}; NOT compared with a key known from elsewhere (--hub-key)"),
    })
}

fn component(bundle: &Bundle<'_>, recorded: &Recorded) -> Checked {
    let pinned = recorded.plan.component;
    let entry = bundle.index.entry(leaf::COMPONENT);
    match entry {
        Some(entry) if entry.digest == pinned && entry.bytes == recorded.plan.component_bytes => {}
        Some(entry) => return wrong(format!("the plan pins {pinned}, the bundle names {}", entry.digest)),
        None => return wrong("the index names no component".to_owned()),
    }
    let Some(content) = bundle.content(leaf::COMPONENT) else {
        return Err(Not::Made(format!("left out; its digest is {pinned}")));
    };
    let found = match admit::inspect(content) {
        Ok(found) => found,
        Err(error) => return wrong(format!("it would not be admitted: {error}")),
    };
    if found.manifest != recorded.manifest {
        return wrong("the manifest inside it is not the one in kernel_json");
    }
    Ok(format!("{} is {}, its manifest is the recorded one", recorded.manifest.label(), pinned.short()))
}

fn planned(bundle: &Bundle<'_>, recorded: &Recorded) -> Checked {
    let old = &recorded.plan;
    if recorded.outcome.plan != old.digest() {
        return wrong(format!("the outcome names the plan {}, recorded is {}", recorded.outcome.plan, old.digest()));
    }
    let kernel = Kernel { digest: old.component, bytes: old.component_bytes, manifest: recorded.manifest.clone() };
    let size = |digest: &Digest| {
        bundle.index.entry(&format!("{}{digest}", leaf::INPUT_PREFIX)).filter(|e| e.digest == *digest).map(|e| e.bytes)
    };
    let made = plan::plan(&recorded.envelope, &kernel).and_then(|mut made| made.resolve(size).map(|()| made));
    let mut made = match made {
        Ok(made) => made,
        Err(failure) => return wrong(format!("the contract cannot be planned: {}", failure.detail)),
    };
    // What the project added is the hub's to say.
    made.terms = old.terms.clone();
    if recorded.replay.is_some() {
        adopt_cut(&mut made, old);
    }
    if made == *old {
        let names: Vec<&str> = old.stages.iter().map(|stage| stage.name.as_str()).collect();
        let (units, stages) = (old.units_total(), names.join(", "));
        return Ok(format!("contract and manifest plan to the recorded plan: {units} units, stages: {stages}"));
    }
    wrong(format!("contract and manifest plan to another plan; first difference at {}", different_field(&made, old)))
}

/// A replay keeps the shards of the job it repeats, whatever its policy would have cut.
fn adopt_cut(made: &mut Plan, old: &Plan) {
    for (stage, cut) in made.stages.iter_mut().zip(&old.stages) {
        let fits = cut.shard_units.is_power_of_two() && u64::from(cut.shards) == stage.units.div_ceil(cut.shard_units);
        if fits {
            (stage.shard_units, stage.shards) = (cut.shard_units, cut.shards);
        }
    }
}

/// The first member, by JSON pointer, in which two plans differ.
fn different_field(a: &Plan, b: &Plan) -> String {
    let value = |plan: &Plan| serde_json::to_value(plan).unwrap_or_default();
    pointer_of_difference(&value(a), &value(b)).unwrap_or_default()
}

fn pointer_of_difference(a: &Value, b: &Value) -> Option<String> {
    if a == b {
        return None;
    }
    let inside = match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|name| {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                pointer_of_difference(a, b).map(|rest| format!("/{name}{rest}"))
            })
        }
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|at| {
            let (a, b) = (a.get(at).unwrap_or(&Value::Null), b.get(at).unwrap_or(&Value::Null));
            pointer_of_difference(a, b).map(|rest| format!("/{at}{rest}"))
        }),
        _ => None,
    };
    Some(inside.unwrap_or_default())
}

fn is_complete(recorded: &Recorded) -> bool {
    recorded.outcome.result.is_some()
}

fn units(recorded: &Recorded) -> Checked {
    let plan = &recorded.plan;
    let mut before = None;
    for shard in &recorded.shards {
        let place = (shard.stage, shard.shard);
        if before.is_some_and(|before| before >= place) {
            return wrong(format!("stage {}, shard {} stands twice or out of order", shard.stage, shard.shard));
        }
        before = Some(place);
        shard_is_sound(recorded, shard)?;
    }
    let found = recorded.shards.iter().fold(0, |sum: u64, shard| sum.saturating_add(shard.units.len() as u64));
    if is_complete(recorded) {
        for (index, stage) in (0u32..).zip(&plan.stages) {
            let shards = recorded.shards.iter().filter(|shard| shard.stage == index).count() as u64;
            let expected = end_of(recorded, stage).0.div_ceil(stage.shard_units.max(1));
            if shards != expected {
                return wrong(format!("stage '{}' has {shards} of {expected} shards", stage.name));
            }
        }
        return Ok(format!("{found} units in {} shards, every one with its digest", recorded.shards.len()));
    }
    Ok(format!("{found} of {} units were accepted before the job ended without a result", plan.units_total()))
}

/// Units and items of a stage: those of its plan, or where its stop rule ended it.
fn end_of(recorded: &Recorded, stage: &StagePlan) -> (u64, u64) {
    let end = recorded.convergence.as_ref().filter(|end| end.stage == stage.name);
    end.map_or((stage.units, stage.items), |end| (end.stopped_at.unit, stage.items_of(0, end.stopped_at.unit)))
}

/// Whether what was accepted and what counts may differ: waves of a stage that a failure or the client broke off.
fn is_broken_off(recorded: &Recorded) -> bool {
    !is_complete(recorded) && recorded.plan.stages.iter().any(|stage| stage.stop.is_some())
}

/// A shard is where the plan puts it, its result is that of its units, its key that of its task.
fn shard_is_sound(recorded: &Recorded, shard: &ShardRecord) -> Result<(), Not> {
    let place = format!("stage {}, shard {}", shard.stage, shard.shard);
    let stage = usize::try_from(shard.stage).ok().and_then(|at| recorded.plan.stages.get(at));
    let run = stage.and_then(|stage| stage.shard_run(shard.shard));
    let (Some(stage), Some((first, count))) = (stage, run) else {
        return wrong(format!("{place}: the plan has no such shard"));
    };
    if shard.first_unit != first || shard.units.len() as u64 != count {
        return wrong(format!("{place}: the plan gives it units {first}..+{count}"));
    }
    if let [only] = shard.units.as_slice()
        && only.digest != shard.fragment
    {
        return wrong(format!("{place}: its only unit, {first}, has another digest than its fragment"));
    }
    if result_digest(&shard.fragment, &shard.units) != shard.result {
        return wrong(format!(
            "{place}: a digest or the fuel of one of units {first} to {} was changed",
            first + count.saturating_sub(1)
        ));
    }
    let Ok(inputs) = replay::inputs_of(stage, &recorded.fragments) else { return Ok(()) };
    // The job's id is no part of a task's key.
    let task = recorded.plan.task(JobId::from_bits(0), shard.stage, shard.shard, inputs);
    if task.is_none_or(|task| task.key_digest() != shard.task) {
        return wrong(format!("{place}: its task is not the plan's"));
    }
    Ok(())
}

impl Recorded {
    pub(super) fn by_lease(&self) -> BTreeMap<LeaseId, &ExecutionRecord> {
        self.executions.iter().map(|execution| (execution.lease, execution)).collect()
    }
}

fn executions(recorded: &Recorded) -> Checked {
    let by_lease = recorded.by_lease();
    for shard in &recorded.shards {
        let place = format!("stage {}, shard {}", shard.stage, shard.shard);
        let Some(execution) = by_lease.get(&shard.lease) else {
            return wrong(format!("{place}: no execution has the lease {}", shard.lease));
        };
        let fuel = shard.units.iter().fold(0u64, |sum, unit| sum.saturating_add(unit.fuel));
        let same = execution.agent_id == shard.agent
            && execution.result_hash == Some(shard.result)
            && execution.status == "REPORTED"
            && execution.fuel == fuel;
        if !same {
            return wrong(format!("{place}: the execution under lease {} says otherwise", shard.lease));
        }
    }
    Ok(format!("{} attempts, one of them behind each accepted shard", recorded.executions.len()))
}

const BROKEN_OFF: &str = "waves of a stage with a stop rule were broken off: what was accepted may not all count";

fn verification(recorded: &Recorded) -> Checked {
    if is_broken_off(recorded) {
        return Err(Not::Made(BROKEN_OFF.into()));
    }
    let said = &recorded.verification;
    let mut found = VerificationReport {
        mode: recorded.plan.verify,
        malformed: said.malformed,
        forgotten: said.forgotten,
        // What the hub's policy makes of the counts, and advice: neither follows from the shards alone.
        bound: said.bound,
        outliers: said.outliers.clone(),
        ..VerificationReport::default()
    };
    let alone = recorded.shards.iter().filter(|shard| shard.verdict.agreed.is_empty()).count() as u64;
    if let Some(bound) = said.bound.filter(|bound| bound.alone != alone) {
        return wrong(format!("{alone} shards rest on one owner alone, the bound is that of {}", bound.alone));
    }
    let by_lease = recorded.by_lease();
    let answers: BTreeSet<(AgentId, Option<Digest>)> =
        recorded.executions.iter().map(|execution| (execution.agent_id, execution.result_hash)).collect();
    for shard in &recorded.shards {
        found.add(&shard.verdict);
        for agent in &shard.verdict.agreed {
            if !answers.contains(&(*agent, Some(shard.result))) {
                let place = format!("stage {}, shard {}", shard.stage, shard.shard);
                return wrong(format!("{place}: no execution shows that agent {} agreed", agent.0.short()));
            }
        }
        for look in shard.verdict.looks.iter().filter(|look| look.right) {
            let shown = by_lease.get(&look.lease).filter(|execution| execution.agent_id == look.agent);
            let same = |execution: &ExecutionRecord| match look.unit {
                Some(unit) => execution.result_hash == unit_result(shard, unit),
                None => execution.found == Some(shard.fragment) && execution.result_hash.is_some(),
            };
            // Before looks were paid, their fuel was not said.
            let burned = |execution: &ExecutionRecord| look.fuel == 0 || execution.fuel == look.fuel;
            if shown.is_none_or(|execution| !same(execution) || !burned(execution)) {
                let place = format!("stage {}, shard {}", shard.stage, shard.shard);
                return wrong(format!("{place}: no execution shows what agent {} looked at", look.agent.0.short()));
            }
        }
    }
    found.agents_refuted.sort();
    let mut sorted = said.clone();
    sorted.agents_refuted.sort();
    if found != sorted {
        return wrong("its counts are not those of the shards' verdicts");
    }
    let VerificationReport { shards, checked, matched, refuted, .. } = said;
    Ok(format!(
        "mode {}: {checked} of {shards} shards compared, {matched} equal, {refuted} disputed",
        said.mode.as_str()
    ))
}

/// What the execution of a unit alone must have given: the unit's own record.
fn unit_result(shard: &ShardRecord, unit: u64) -> Option<Digest> {
    let at = usize::try_from(unit.checked_sub(shard.first_unit)?).ok()?;
    let record = shard.units.get(at)?;
    // A single unit's fragment is its own fold.
    Some(result_digest(&record.digest, &[*record]))
}

fn output(recorded: &Recorded) -> Checked {
    let (Some(result), Some(said)) = (&recorded.outcome.result, &recorded.output) else {
        if is_complete(recorded) {
            return wrong("the job has a result and the bundle no output");
        }
        return Err(Not::Made(format!("the job is {} and has none", recorded.outcome.status)));
    };
    for ((index, stage), fragment) in (0u32..).zip(&recorded.plan.stages).zip(&recorded.fragments) {
        let sound = Fragment::decode(&fragment.bytes)
            .map_err(|error| error.to_string())
            .and_then(|read| read.check(&stage.parts, end_of(recorded, stage).1).map_err(|error| error.to_string()));
        if let Err(reason) = sound {
            return wrong(format!("the fragment of stage '{}': {reason}", stage.name));
        }
        let mut shards = recorded.shards.iter().filter(|shard| shard.stage == index);
        if let (Some(only), None) = (shards.next(), shards.next())
            && only.fragment != fragment.digest
        {
            return wrong(format!("the fragment of stage '{}' is not that of its only shard", stage.name));
        }
    }
    if reduce::result_digest(&recorded.fragments) != *result {
        return wrong(format!("the fragments have another result digest than {result}"));
    }
    match reduce::output(&recorded.plan, &recorded.fragments) {
        Ok(found) if found == *said => Ok(format!("the fragments reduce to it; result digest {result}")),
        Ok(found) => {
            let at = pointer_of_difference(&found, said).unwrap_or_default();
            wrong(format!("the fragments reduce to another output; first difference at {at}"))
        }
        Err(failure) => wrong(format!("the fragments cannot be reduced: {}", failure.detail)),
    }
}

fn ledger(bundle: &Bundle<'_>, recorded: &Recorded) -> Checked {
    if is_broken_off(recorded) {
        return Err(Not::Made(BROKEN_OFF.into()));
    }
    let fuel = recorded.fuel();
    if recorded.outcome.work.fuel != fuel {
        return wrong(format!("the outcome says {} fuel, the units burned {fuel}", recorded.outcome.work.fuel));
    }
    let [line] = recorded.ledger.as_slice() else {
        return wrong(format!("{} lines where a job has one", recorded.ledger.len()));
    };
    let bill = match &recorded.transaction {
        Some(transaction) => posted(recorded, line, transaction)?,
        // From before there were books.
        None => {
            let charged = if is_complete(recorded) { fuel } else { 0 };
            bill(&Rates::default(), recorded.envelope.ctx.billing.mode, charged)
        }
    };
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    for (name, expected) in [
        ("job", bundle.index.job.to_string()),
        ("status", recorded.outcome.status.clone()),
        ("fuel", fuel.to_string()),
        ("credits_micro", bill.credits_micro.to_string()),
        ("eur_micro", bill.eur_micro.to_string()),
    ] {
        if text(name) != expected {
            return wrong(format!("{name} is '{}' where the evidence gives {expected}", text(name)));
        }
    }
    Ok(format!("{fuel} verified fuel, {} micro-credits", bill.credits_micro))
}

/// The bill as the accepted shards and the agreed tariff give it, where the transaction that was posted says the same.
fn posted(recorded: &Recorded, line: &Value, transaction: &Transaction) -> Result<Bill, Not> {
    let digest = transaction.digest();
    if line.get("transaction").and_then(Value::as_str) != Some(digest.to_string().as_str()) {
        return wrong(format!("the line names another transaction than the one that is there, {digest}"));
    }
    if let Err(error) = transaction.check() {
        return wrong(format!("transaction {digest}: {error}"));
    }
    let said = recorded.bill.as_ref().and_then(|bill| bill.lines.as_ref().map(|lines| (bill, lines)));
    let Some((said, lines)) = said else { return wrong("the bill has no lines") };
    let is_owed = match recorded.outcome.code {
        None => is_complete(recorded) || recorded.outcome.status == "CANCELLED",
        Some(code) => matches!(code.blame(), Blame::Kernel | Blame::Client),
    };
    let (fuel, check_fuel) = burned(recorded.shards.iter().filter(|_| is_owed).map(ShardRecord::backed));
    let charge = Charge::of(&lines.tariff, lines.held_micro, fuel, check_fuel);
    let mode = recorded.envelope.ctx.billing.mode;
    let expected = Bill { charged: said.charged, ..charge.bill(&lines.tariff, mode, lines.held_micro) };
    if expected != *said {
        return wrong(format!(
            "the bill says {} micro-credits, tariff and shards give {}",
            said.credits_micro, expected.credits_micro
        ));
    }
    let client = |posting: &&Posting| matches!(posting.account, Account::Project(_) | Account::Hold(_));
    let paid: i128 = transaction.postings.iter().filter(client).map(|posting| i128::from(posting.micro)).sum();
    let charged = if said.charged { charge.charged_micro } else { 0 };
    if paid != -i128::from(charged) {
        return wrong(format!("the client was to be charged {charged} micro-credits, the transaction moves {paid}"));
    }
    Ok(expected)
}

fn repeated(recorded: &Recorded) -> Checked {
    let Some(replay) = &recorded.replay else { return Err(Not::Made("no replay".into())) };
    match (replay.verdict, is_complete(recorded)) {
        (Some(verdict), true) => Ok(format!("repeats job {}: {}", replay.of, verdict.as_str())),
        (None, false) => Ok(format!("was to repeat job {} and ended without a result", replay.of)),
        _ => wrong("a replay has a verdict when it has a result"),
    }
}
