//! Whose word it is: every answer a shard rests on, and every look at one, carries its agent's signature.

use std::collections::BTreeSet;

use forge_contract::duty::{Challenge, Examination, FoundRef};
use forge_contract::report::{check_statement_of, statement_of};
use forge_contract::task::Task;
use forge_contract::{AgentId, Digest, JobId};

use super::audit::{Checked, Not, wrong};
use super::key::Verify;
use super::leaf::{ExecutionRecord, Recorded, ShardRecord};
use crate::action::Asked;
use crate::replay;
use crate::verify::Looked;

/// What signatures were found.
#[derive(Default)]
struct Tally {
    shards: u64,
    copies: u64,
    looks: u64,
    unsigned: u64,
    signers: BTreeSet<AgentId>,
}

/// Checks the signatures of the accepted answers, of those that agreed with them, and of what looks found.
pub(super) fn agents(recorded: &Recorded, verify: Verify<'_>) -> Checked {
    let by_lease = recorded.by_lease();
    let mut tally = Tally::default();
    for shard in &recorded.shards {
        let place = format!("stage {}, shard {}", shard.stage, shard.shard);
        let answer = by_lease.get(&shard.lease).copied();
        if answer.is_some_and(|execution| execution.engine.is_some() && execution.engine != Some(shard.engine)) {
            return wrong(format!("{place}: its answer ran under another engine than was recorded"));
        }
        let statement = |said: &ExecutionRecord, engine: &Digest| {
            Some(statement_of(said.lease, &shard.task, engine, &said.result_hash?))
        };
        tally.shards += u64::from(is_signed(answer, shard.agent, statement, verify, &place, &mut tally.signers)?);
        for agent in &shard.verdict.agreed {
            let same = |said: &&ExecutionRecord| {
                said.agent_id == *agent && said.shard_id == id_of(shard) && said.result_hash == Some(shard.result)
            };
            let copy = recorded.executions.iter().find(same);
            let signed = is_signed(copy, *agent, statement, verify, &place, &mut tally.signers)?;
            tally.copies += u64::from(signed);
            tally.unsigned += u64::from(!signed);
        }
        let task = if shard.verdict.looks.is_empty() { None } else { task_of(recorded, shard) };
        for look in &shard.verdict.looks {
            let said = by_lease.get(&look.lease).copied();
            let statement =
                |said: &ExecutionRecord, engine: &Digest| look_statement(task.as_ref()?, *look, said, engine);
            let signed = is_signed(said, look.agent, statement, verify, &place, &mut tally.signers)?;
            tally.looks += u64::from(signed);
            tally.unsigned += u64::from(!signed);
        }
    }
    let Tally { shards, copies, looks, unsigned, signers } = tally;
    let all = recorded.shards.len() as u64;
    if shards < all {
        return Err(Not::Made(format!("{shards} of {all} shards carry their agent's signature")));
    }
    if unsigned > 0 {
        return Err(Not::Made(format!("{unsigned} copies and looks carry no signature that could be compared")));
    }
    Ok(format!(
        "{shards} shards, {copies} copies and {looks} looks, each signed by its agent, {} agents",
        signers.len()
    ))
}

/// Whether an execution carries its agent's signature of what it is said to have given; `false` where it has none.
fn is_signed(
    said: Option<&ExecutionRecord>,
    agent: AgentId,
    statement: impl Fn(&ExecutionRecord, &Digest) -> Option<Digest>,
    verify: Verify<'_>,
    place: &str,
    signers: &mut BTreeSet<AgentId>,
) -> Result<bool, Not> {
    let Some(said) = said else { return Ok(false) };
    let (Some(key), Some(signature), Some(engine)) = (&said.agent_key, &said.signature, &said.engine) else {
        return Ok(false);
    };
    if AgentId::of_public_key(&key.0) != agent {
        return wrong(format!("{place}: the key is not that of agent {}", agent.0.short()));
    }
    let Some(statement) = statement(said, engine) else { return Ok(false) };
    if !verify(key, statement.as_bytes(), signature) {
        return wrong(format!("{place}: the report's signature is not that of agent {}", agent.0.short()));
    }
    signers.insert(agent);
    Ok(true)
}

fn id_of(shard: &ShardRecord) -> String {
    format!("{}/{}", shard.stage, shard.shard)
}

/// A shard's task; the job's id is no part of its key. `None` where what it read is not in the bundle.
fn task_of(recorded: &Recorded, shard: &ShardRecord) -> Option<Task> {
    let stage = recorded.plan.stages.get(usize::try_from(shard.stage).ok()?)?;
    let inputs = replay::inputs_of(stage, &recorded.fragments).ok()?;
    recorded.plan.task(JobId::from_bits(0), shard.stage, shard.shard, inputs)
}

/// What an agent signs that looked at an answer.
fn look_statement(shard: &Task, look: Looked, said: &ExecutionRecord, engine: &Digest) -> Option<Digest> {
    let result = said.result_hash?;
    Some(match look.unit {
        Some(unit) => statement_of(said.lease, &Asked::Unit(unit).task(shard).key_digest(), engine, &result),
        None => {
            // How many bytes it has is no part of what is signed.
            let found = FoundRef { digest: said.found?, bytes: 0 };
            let examination = Examination { found, challenge: Challenge(*said.challenge?.as_bytes()) };
            let task = Asked::Check(examination).task(shard);
            check_statement_of(said.lease, &task.key_digest(), engine, &result)
        }
    })
}
