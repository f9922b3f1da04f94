//! What must hold for any bytes, decoder by decoder.

use std::fmt::Display;
use std::str::FromStr;

use forge_contract::canon;
use forge_contract::envelope::Envelope;
use forge_contract::fragment::tree::Fold;
use forge_contract::fragment::{self, Fragment, Part, TileView, View};
use forge_contract::manifest::{Manifest, PartSpec};
use forge_contract::stop::StopRule;
use forge_contract::{AgentId, Digest, FailureCode, JobId, LeaseId};
use forge_lifecycle::plan::{self, Plan};
use forge_lifecycle::{admit, bundle};
use forge_protocol::frame::{self, HEADER_BYTES, Header};
use forge_protocol::message::{
    Drain, Fetch, Have, Heartbeat, Hello, Kind, Lease, Message, Missing, Progress, Refused, ReportHead, SPANS_MAX,
    Standing, Welcome,
};
use forge_protocol::proof::{self, Selection};
use forge_protocol::session::{AgentControl, HubControl, ShardAnswer};
use forge_protocol::{EnrolToken, HubKey};

use crate::{memory, seeds};

/// Longest text of a refusal, bytes: it is logged, stored and shown.
const REASON_BYTES_MAX: usize = 16 << 10;

/// A refusal says why, in a text of bounded length.
fn reason(refusal: &impl Display) {
    let text = refusal.to_string();
    assert!(!text.trim().is_empty(), "a refusal without a reason");
    assert!(text.len() <= REASON_BYTES_MAX, "a refusal of {} bytes", text.len());
}

pub fn component(bytes: &[u8]) {
    match admit::inspect(bytes) {
        Ok(admitted) => {
            assert_eq!((admitted.digest, admitted.bytes), (Digest::of(bytes), bytes.len() as u64));
            round_trip(&admitted.manifest);
        }
        Err(refusal) => reason(&refusal),
    }
}

pub fn manifest(bytes: &[u8]) {
    match Manifest::parse(bytes) {
        Ok(manifest) => round_trip(&manifest),
        Err(refusal) => reason(&refusal),
    }
}

fn round_trip(manifest: &Manifest) {
    let text = canon::json(manifest).unwrap();
    let again = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(canon::json(&again).unwrap(), text);
}

pub fn fragment(bytes: &[u8]) {
    // The hub reads up to 64 MiB from an agent: what reading alone may hold is a matter of its own.
    let read = memory::peak_of(|| drop(Fragment::decode(bytes)));
    assert!(read <= 16 * bytes.len() + (16 << 10), "reading {} bytes holds {read}", bytes.len());
    let fragment = match Fragment::decode(bytes) {
        Ok(fragment) => fragment,
        Err(refusal) => {
            assert_eq!(fragment::view(bytes).unwrap_err(), refusal);
            return reason(&refusal);
        }
    };
    assert_eq!(fragment.encode(), bytes, "one value has one encoding");
    same_view(&fragment, bytes);
    let spec = |counts_items| {
        let spec = |part: &forge_contract::fragment::Named| PartSpec {
            name: part.name.clone(),
            kind: part.part.kind(),
            counts_items,
            shown: true,
            unit: None,
        };
        fragment.parts.iter().map(spec).collect::<Vec<_>>()
    };
    let sound = fragment.check(&spec(false), 0);
    if let Err(refusal) = &sound {
        reason(refusal);
    }
    if let Err(refusal) = fragment.check(&spec(true), 7) {
        reason(&refusal);
    }
    // What is sound folds or says why not, and stays one value with one encoding.
    let mut fold = Fold::new(2);
    let folded = fold.insert(0, 1, fragment.clone()).and_then(|()| fold.insert(1, 1, fragment));
    match folded {
        Ok(()) => {
            let bytes = fold.finish().unwrap().encode();
            assert_eq!(Fragment::decode(&bytes).unwrap().encode(), bytes);
        }
        Err(refusal) => reason(&refusal),
    }
}

/// What is read without copying is what is read.
fn same_view(fragment: &Fragment, bytes: &[u8]) {
    let views = fragment::view(bytes).unwrap();
    assert_eq!(views.len(), fragment.parts.len());
    for ((name, view), named) in views.iter().zip(&fragment.parts) {
        assert_eq!(*name, named.name);
        match (view, &named.part) {
            (View::Tiles(views), Part::Tiles(tiles)) => {
                assert!(views.iter().copied().eq(tiles.iter().map(TileView::of)))
            }
            (View::Other(part), found) => assert_eq!(part.kind(), found.kind()),
            (View::Tiles(_), _) => panic!("'{name}' is viewed as tiles"),
        }
    }
}

pub fn envelope(bytes: &[u8]) {
    let envelope = match Envelope::parse(bytes) {
        Ok(envelope) => envelope,
        Err(failure) => {
            assert_eq!(failure.code.as_str().split('.').next(), Some("request"));
            return reason(&failure);
        }
    };
    let again = Envelope::parse(envelope.canonical().as_bytes()).unwrap();
    // `12.0` is `12` in canonical JSON: another spelling, the same contract.
    assert_eq!(again.canonical(), envelope.canonical());
    assert_eq!((again.digest(), again.ctx, again.policy), (envelope.digest(), envelope.ctx, envelope.policy));
    if let Some(stop) = envelope.args.get("stop")
        && let Err(failure) = StopRule::parse("stop", stop)
    {
        reason(&failure);
    }
}

pub fn wire(bytes: &[u8]) {
    let (mut hub, mut agent) = (HubControl::default(), AgentControl::default());
    let mut answer = ShardAnswer::new(LeaseId(9), 10);
    let mut rest = bytes;
    while let Some((head, body)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = match Header::read(*head) {
            Ok(header) => header,
            Err(refusal) => return reason(&refusal),
        };
        let Some((body, after)) = body.split_at_checked(header.bytes) else { return };
        rest = after;
        match header.kind {
            Kind::Hello => {
                if let Some(hello) = message::<Hello>(body)
                    && hub.hello(&hello).is_ok()
                {
                    hub.welcome();
                }
            }
            Kind::Welcome => {
                let _ = message::<Welcome>(body).map(|welcome| agent.welcome(&welcome));
            }
            Kind::Drain => {
                let _ = message::<Drain>(body).map(|_| (hub.drain(), agent.drain()));
            }
            Kind::Progress => {
                let _ = message::<Progress>(body).map(|progress| answer.progress(progress));
            }
            Kind::Report => {
                if let Some(report) = message::<ReportHead>(body) {
                    let _ = answer.report(report.lease);
                    let (report, _) = report.join(Vec::new());
                    let _ = report.statement();
                }
            }
            Kind::Lease => {
                if let Some(lease) = message::<Lease>(body) {
                    let task = lease.task;
                    let _ = (task.key_digest(), task.cut.units(), task.cut.slice(task.first_unit));
                }
            }
            Kind::Refused => drop(message::<Refused>(body)),
            Kind::Heartbeat => drop(message::<Heartbeat>(body)),
            Kind::Fetch => {
                if let Some(Fetch { digest, spans }) = message::<Fetch>(body)
                    && let Some(selection) = Selection::new(300_000, &spans[..spans.len().min(SPANS_MAX)])
                {
                    // No bytes that come by are the proof of a digest that came by.
                    assert!(proof::verify(&digest, &selection, body.to_vec().into()).is_err());
                }
            }
            Kind::Have => drop(message::<Have>(body)),
            Kind::Missing => drop(message::<Missing>(body)),
            Kind::Standing => drop(message::<Standing>(body)),
        }
        assert!(hub.legal().len() + agent.legal().len() <= 4);
    }
}

/// The message of a frame's bytes; what it holds survives being sent on.
fn message<M: Message>(body: &[u8]) -> Option<M> {
    match frame::decode::<M>(body) {
        Ok(message) => {
            let sent = match frame::encode(&message) {
                Ok(sent) => sent,
                Err(refusal) => {
                    reason(&refusal);
                    return None;
                }
            };
            let again = frame::decode::<M>(&sent[HEADER_BYTES..]).unwrap();
            assert_eq!(frame::encode(&again).unwrap(), sent);
            Some(message)
        }
        Err(refusal) => {
            reason(&refusal);
            None
        }
    }
}

pub fn text(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    one_spelling::<JobId>(text);
    one_spelling::<Digest>(text);
    one_spelling::<AgentId>(text);
    one_spelling::<HubKey>(text);
    one_spelling::<EnrolToken>(text);
    one_spelling::<FailureCode>(text);
}

/// What is read is printed as it was written: no two texts name one thing.
fn one_spelling<T: FromStr<Err: Display> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string(), text),
        Err(refusal) => reason(&refusal),
    }
}

pub fn plan(bytes: &[u8]) {
    let Ok(stored) = serde_json::from_slice::<Plan>(bytes) else { return };
    let text = stored.canonical();
    let again: Plan = serde_json::from_str(&text).unwrap();
    assert_eq!(again.canonical(), text);
    let _ = (again.digest(), again.shards_total(), again.units_total());
    for (index, stage) in (0u32..).zip(&again.stages) {
        for shard in [0, 1, stage.shards.wrapping_sub(1), u32::MAX] {
            if let Some(task) = again.task(JobId::from_bits(1), index, shard, Vec::new()) {
                let _ = (task.key_digest(), task.cut.slice(task.first_unit), task.cut.units());
            }
        }
    }
    assert_eq!(plan::replay_key(&again.component, &again.profile, &again.args, &again.root_seed).as_bytes().len(), 32);
}

pub fn bundle(bytes: &[u8]) {
    match bundle::decode(bytes) {
        Ok(found) => audited(&found),
        Err(refusal) => reason(&refusal),
    }
    // A root over foreign leaves is seldom hit by chance, so they are sealed here: what reads leaves gets any bytes.
    let contents: Vec<&[u8]> = bytes.split(|byte| *byte == seeds::SEPARATOR).collect();
    let sealed = seeds::sealed(&contents);
    audited(&bundle::decode(&sealed).unwrap());
}

/// Every check comes to a verdict and says why.
fn audited(found: &bundle::Bundle<'_>) {
    let checks = bundle::audit::audit(found, None, &|_, _, _| true);
    assert!(checks.iter().all(|check| !check.detail.is_empty()));
}
