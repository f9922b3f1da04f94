//! Accepted shards as they are stored: a format's number, then postcard. What was stored once stays readable.

use forge_contract::Digest;
use forge_lifecycle::action::Accepted;

use crate::store::AcceptedRow;

/// First byte of a stored acceptance.
const FORMAT: u8 = 4;

/// An acceptance without its fragment, and the fragment's digest, as bytes.
pub(super) fn encode(accepted: &Accepted, fragment: Digest) -> Option<Vec<u8>> {
    postcard::to_extend(&(fragment, accepted), vec![FORMAT]).ok()
}

/// What [`encode`] wrote, or what it wrote once; `None` where the format is unknown.
pub(super) fn decode(body: &[u8]) -> Option<(Digest, Accepted)> {
    match body.split_first()? {
        (&FORMAT, body) => postcard::from_bytes(body).ok(),
        (&former::FORMAT, body) => former::decode(body),
        _ => None,
    }
}

/// A stored acceptance without its fragment; `None` where its format is unknown.
#[must_use]
pub fn accepted_of(body: &[u8]) -> Option<Accepted> {
    decode(body).map(|(_, accepted)| accepted)
}

/// A stored acceptance with its fragment; `None` where its format is unknown.
pub(super) fn restored(row: AcceptedRow) -> Option<Accepted> {
    let (_, accepted) = decode(&row.body)?;
    // An erratum run takes over what another job accepted: the row says whose it is now.
    Some(Accepted { job: row.job, fragment: row.fragment, ..accepted })
}

/// The format of before looks were paid: it did not say their fuel.
mod former {
    use forge_contract::report::{UnitRecord, Usage};
    use forge_contract::{AgentId, Digest, JobId, LeaseId};
    use forge_lifecycle::action::Accepted;
    use forge_lifecycle::verify::{Looked, Standing, Verdict};
    use serde::{Deserialize, Serialize};

    pub const FORMAT: u8 = 3;

    #[derive(Serialize, Deserialize)]
    struct AcceptedThen {
        job: JobId,
        stage: u32,
        shard: u32,
        lease: LeaseId,
        agent: AgentId,
        task: Digest,
        engine: Digest,
        fragment: Vec<u8>,
        units: Vec<UnitRecord>,
        usage: Usage,
        result: Digest,
        verdict: VerdictThen,
    }

    #[derive(Serialize, Deserialize)]
    struct VerdictThen {
        standing: Standing,
        agreed: Vec<AgentId>,
        refuted: Vec<AgentId>,
        failed: u32,
        looks: Vec<LookedThen>,
    }

    #[derive(Serialize, Deserialize)]
    struct LookedThen {
        agent: AgentId,
        lease: LeaseId,
        unit: Option<u64>,
        right: bool,
        error_e18: u64,
    }

    pub fn decode(body: &[u8]) -> Option<(Digest, Accepted)> {
        let (digest, then): (Digest, AcceptedThen) = postcard::from_bytes(body).ok()?;
        let looked = |LookedThen { agent, lease, unit, right, error_e18 }: LookedThen| Looked {
            agent,
            lease,
            unit,
            right,
            error_e18,
            fuel: 0,
        };
        let VerdictThen { standing, agreed, refuted, failed, looks } = then.verdict;
        let looks = looks.into_iter().map(looked).collect();
        let AcceptedThen { job, stage, shard, lease, agent, task, engine, fragment, units, usage, result, .. } = then;
        let verdict = Verdict { standing, agreed, refuted, failed, looks };
        let accepted =
            Accepted { job, stage, shard, lease, agent, task, engine, fragment, units, usage, result, verdict };
        Some((digest, accepted))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use forge_contract::JobId;
    use forge_contract::report::{UnitRecord, Usage};
    use forge_contract::{AgentId, LeaseId};
    use forge_lifecycle::verify::{Looked, Verdict};

    #[test]
    fn an_acceptance_comes_back_as_it_was() {
        let look = |fuel| Looked {
            agent: AgentId(Digest::of(b"l")),
            lease: LeaseId(10),
            unit: Some(3),
            right: true,
            error_e18: 5,
            fuel,
        };
        let accepted = Accepted {
            job: JobId::new(1, 2),
            stage: 1,
            shard: 70_000,
            lease: LeaseId(9),
            agent: AgentId(Digest::of(b"a")),
            task: Digest::of(b"t"),
            engine: Digest::of(b"e"),
            fragment: Vec::new(),
            units: vec![UnitRecord { digest: Digest::of(b"u"), fuel: 1 << 40 }],
            usage: Usage { wall_us: 3, cpu_us: 2, prepare_us: 1 },
            result: Digest::of(b"r"),
            verdict: Verdict { agreed: vec![AgentId(Digest::of(b"b"))], looks: vec![look(7)], ..Verdict::default() },
        };
        let row = |body| AcceptedRow { job: accepted.job, stage: 1, shard: 70_000, body, fragment: vec![7; 3] };
        let body = encode(&accepted, Digest::of(&[7; 3])).unwrap();
        assert_eq!(decode(&body).unwrap().0, Digest::of(&[7; 3]));
        let back = restored(row(body.clone())).unwrap();
        assert_eq!(back, Accepted { fragment: vec![7; 3], ..accepted.clone() });
        let taken_over = AcceptedRow { job: JobId::new(3, 4), ..row(body.clone()) };
        assert_eq!(restored(taken_over).unwrap().job, JobId::new(3, 4), "the row says whose it is");
        // As the format before wrote it, byte for byte but for the fuel of the look.
        let mut then = body.clone();
        then[0] = former::FORMAT;
        assert!(then.ends_with(&[7]), "the fuel is the last byte");
        then.pop();
        let mut expected = accepted.clone();
        expected.verdict.looks = vec![look(0)];
        assert_eq!(decode(&then).unwrap().1, expected);
        let mut other = body;
        other[0] = 1;
        assert_eq!(restored(row(other)), None);
    }
}
