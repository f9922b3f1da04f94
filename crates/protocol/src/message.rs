//! The messages, each with its number on the wire and its greatest size.
//!
//! A message is a frame ([`crate::frame`]): a fixed header, then the postcard encoding of the struct here. A report's
//! fragment and what is fetched of an object follow their frame as raw bytes, so that large data is neither copied nor held twice.

use forge_contract::capability::Capability;
use forge_contract::failure::Failure;
use forge_contract::limits::{
    DETAIL_BYTES_MAX, LOG_BYTES_MAX, OUTPUT_BYTES_MAX, REASONS_BYTES_MAX, REQUEST_BYTES_MAX, SHARD_UNITS_MAX,
};
use forge_contract::report::{Checked, Completed, Outcome, Report, UnitRecord, Usage};
use forge_contract::task::Task;
use forge_contract::trace::TraceContext;
use forge_contract::{AgentId, Digest, LeaseId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::proof::Span;

/// Greatest size of a shard's folded fragment on the wire, bytes.
pub const FRAGMENT_BYTES_MAX: u64 = OUTPUT_BYTES_MAX;
/// Most bytes of a unit record: a digest and a 64-bit number of at most ten bytes.
const UNIT_RECORD_BYTES_MAX: usize = 32 + 10;
/// Most bytes of a shard's unit records. A verdict without its reason takes less than a record.
#[expect(clippy::cast_possible_truncation, reason = "2^14 fits every usize")]
const UNIT_RECORDS_BYTES_MAX: usize = SHARD_UNITS_MAX as usize * UNIT_RECORD_BYTES_MAX;
/// Longest text of a refusal or a software name, bytes.
pub const TEXT_BYTES_MAX: usize = DETAIL_BYTES_MAX;

/// Most spans one fetch asks for.
pub const SPANS_MAX: usize = 256;

/// Most events in a standing.
pub const STANDING_EVENTS_MAX: usize = 8;
/// Longest text in a standing, bytes.
pub const STANDING_TEXT_BYTES_MAX: usize = 160;

/// What a frame holds. The number is the frame's second field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Agent to hub, first on the control stream.
    Hello = 1,
    /// Hub to agent: the answer to a hello that is accepted.
    Welcome = 2,
    /// Hub to agent: the answer to a hello that is not.
    Refused = 3,
    /// Agent to hub, every `heartbeat_ms`.
    Heartbeat = 4,
    /// Both ways: no new leases, running ones end.
    Drain = 5,
    /// Hub to agent, first and only on a shard stream.
    Lease = 6,
    /// Agent to hub on a shard stream, any number of times before the report.
    Progress = 7,
    /// Agent to hub, last on a shard stream; the fragment follows.
    Report = 8,
    /// Agent to hub, first and only on a fetch stream.
    Fetch = 9,
    /// Hub to agent: the object's size; what was asked for follows, with its proof.
    Have = 10,
    /// Hub to agent: no such object.
    Missing = 11,
    /// Hub to agent on the control stream, after a welcome and when it moved: what the hub thinks of the agent.
    Standing = 12,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Welcome,
        Self::Refused,
        Self::Heartbeat,
        Self::Drain,
        Self::Lease,
        Self::Progress,
        Self::Report,
        Self::Fetch,
        Self::Have,
        Self::Missing,
        Self::Standing,
    ];

    /// The kind of this number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Greatest size of the message, bytes, without header and what follows the frame.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Hello => 32 << 10,
            Self::Welcome | Self::Heartbeat | Self::Have => 256,
            // A digest, a count, two numbers of at most ten bytes each.
            Self::Fetch => 32 + 10 + SPANS_MAX * 20,
            Self::Refused => 64 + TEXT_BYTES_MAX,
            Self::Drain | Self::Missing => 0,
            // A task's arguments came in one request and grew by its schema's defaults at most.
            Self::Lease => 4 * REQUEST_BYTES_MAX,
            Self::Progress => 10,
            // Seven numbers, a code, and the events with a length each.
            Self::Standing => 256 + STANDING_EVENTS_MAX * (STANDING_TEXT_BYTES_MAX + 2),
            Self::Report => {
                1024 + LOG_BYTES_MAX * 2 + DETAIL_BYTES_MAX * 2 + REASONS_BYTES_MAX + UNIT_RECORDS_BYTES_MAX
            }
        }
    }
}

/// A message that is one frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;
}

macro_rules! messages {
    ($($message:ident,)*) => { $(impl Message for $message { const KIND: Kind = Kind::$message; })* };
}
messages!(Hello, Welcome, Refused, Heartbeat, Drain, Lease, Progress, Fetch, Have, Missing, Standing,);

impl Message for ReportHead {
    const KIND: Kind = Kind::Report;
}

/// An agent introduces itself. Its key is the one of its TLS certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::REVISION`].
    pub revision: u32,
    /// Name and version of the agent's software, for people.
    pub software: String,
    /// What the machine offers.
    pub capability: Capability,
    /// The secret of an enrolment token, by an agent that has one.
    pub enrol_secret: Option<[u8; 32]>,
}

/// The hub takes the agent in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::REVISION`].
    pub revision: u32,
    /// The agent, as the hub knows it.
    pub agent: AgentId,
    /// The session; rises over the life of a hub process.
    pub session: u64,
    /// How often a heartbeat is expected, milliseconds.
    pub heartbeat_ms: u32,
    /// Leases the hub gives at once, at most.
    pub leases_max: u32,
}

/// Why the hub does not take an agent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// Another revision of the protocol.
    Revision,
    /// An unknown key without a token.
    NotEnrolled,
    /// The token is unknown, used or expired.
    Token,
    /// The hello breaks a rule.
    Malformed,
    /// The hub cannot decide now.
    Unavailable,
    /// The hub is stopping.
    Draining,
}

impl RefusalCode {
    /// The stable text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revision => "wire.revision",
            Self::NotEnrolled => "wire.not_enrolled",
            Self::Token => "wire.token",
            Self::Malformed => "wire.malformed",
            Self::Unavailable => "wire.unavailable",
            Self::Draining => "wire.draining",
        }
    }

    /// Whether trying again without a change can help.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Unavailable | Self::Draining)
    }
}

/// The hub does not take the agent in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub code: RefusalCode,
    /// One sentence for people.
    pub detail: String,
}

/// What an agent has in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Shards running.
    pub running: u32,
    /// Leases waiting for a worker, an input or a compilation.
    pub waiting: u32,
    /// Memory the machine has free, bytes; 0 where unknown.
    pub memory_free_bytes: u64,
}

/// An agent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What it has in hand.
    pub load: Load,
}

/// No new leases from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain;

/// A shard for an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// The lease's number, the fencing token.
    pub lease: LeaseId,
    /// How long the hub waits, milliseconds from receipt.
    pub deadline_ms: u64,
    /// The span the shard is run in, for logs and traces; no part of the computation.
    pub trace: TraceContext,
    /// The shard.
    pub task: Task,
}

/// A [`Lease`] by reference, of the same bytes, for a task that many leases share.
#[derive(Debug, Serialize)]
pub struct LeaseRef<'a> {
    /// The lease's number.
    pub lease: LeaseId,
    /// How long the hub waits, milliseconds from receipt.
    pub deadline_ms: u64,
    /// The span the shard is run in.
    pub trace: TraceContext,
    /// The shard.
    pub task: &'a Task,
}

/// Units of the shard that are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Their number.
    pub units_done: u64,
}

/// A report without its fragment, whose bytes follow the frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportHead {
    /// As in [`Report`].
    pub lease: LeaseId,
    /// As in [`Report`].
    pub task: Digest,
    /// As in [`Report`].
    pub engine: Digest,
    /// How it ended.
    pub ending: Ending,
    /// As in [`Report`].
    pub usage: Usage,
    /// As in [`Report`].
    pub log: String,
    /// The agent's signature over [`Report::statement`].
    pub signature: Signature,
}

/// An Ed25519 signature, 64 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        let (first, second) = self.0.split_at(32);
        r.copy_from_slice(first);
        s.copy_from_slice(second);
        (r, s).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (r, s) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        let (first, second) = bytes.split_at_mut(32);
        first.copy_from_slice(&r);
        second.copy_from_slice(&s);
        Ok(Self(bytes))
    }
}

/// An [`Outcome`] without its fragment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ending {
    /// The shard was computed.
    Completed {
        /// Size of the fragment that follows, bytes; at most [`FRAGMENT_BYTES_MAX`].
        fragment_bytes: u64,
        /// One record per unit.
        units: Vec<UnitRecord>,
    },
    /// It was not; nothing follows.
    Failed(Failure),
    /// What was found for it was checked; nothing follows.
    Checked(Checked),
}

impl ReportHead {
    /// Takes a report apart: head and the fragment that follows it.
    #[must_use]
    pub fn split(report: Report, signature: Signature) -> (Self, Vec<u8>) {
        let (ending, fragment) = match report.outcome {
            Outcome::Completed(Completed { fragment, units }) => {
                (Ending::Completed { fragment_bytes: fragment.len() as u64, units }, fragment)
            }
            Outcome::Failed(failure) => (Ending::Failed(failure), Vec::new()),
            Outcome::Checked(checked) => (Ending::Checked(checked), Vec::new()),
        };
        let head = Self {
            lease: report.lease,
            task: report.task,
            engine: report.engine,
            ending,
            usage: report.usage,
            log: report.log,
            signature,
        };
        (head, fragment)
    }

    /// Bytes that follow the frame.
    #[must_use]
    pub fn fragment_bytes(&self) -> u64 {
        match &self.ending {
            Ending::Completed { fragment_bytes, .. } => *fragment_bytes,
            Ending::Failed(_) | Ending::Checked(_) => 0,
        }
    }

    /// Puts head and fragment together again: the report and its signature, not yet verified.
    #[must_use]
    pub fn join(self, fragment: Vec<u8>) -> (Report, Signature) {
        let outcome = match self.ending {
            Ending::Completed { units, .. } => Outcome::Completed(Completed { fragment, units }),
            Ending::Failed(failure) => Outcome::Failed(failure),
            Ending::Checked(checked) => Outcome::Checked(checked),
        };
        let report = Report {
            lease: self.lease,
            task: self.task,
            engine: self.engine,
            outcome,
            usage: self.usage,
            log: self.log,
        };
        (report, self.signature)
    }
}

/// An agent asks for pieces of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Its content address.
    pub digest: Digest,
    /// Which pieces, in any order; one to [`SPANS_MAX`], of which at least one holds something of the object.
    pub spans: Vec<Span>,
}

/// The hub has the object; the pieces asked for follow as [`crate::proof`] encodes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Size of the whole object, bytes.
    pub bytes: u64,
}

/// The hub does not have the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing;

/// How an agent stands at the hub, for its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Shards accepted from it since it enrolled or last went wrong.
    pub clean: u64,
    /// Shards accepted from it since it enrolled.
    pub accepted: u64,
    /// The share of its answers that is audited, per million.
    pub audit_ppm: u32,
    /// Why it gets no more work, where it does not: a failure code.
    pub quarantined: Option<String>,
    /// Pay that is not settled yet, micro-credits.
    pub held_micro: u64,
    /// Pay that is, micro-credits.
    pub payable_micro: u64,
    /// Pay that was lost, micro-credits.
    pub forfeited_micro: u64,
    /// What happened to it, newest first, for people.
    pub events: Vec<String>,
}

impl Standing {
    /// The same within its maximum size: the newest events, long texts cut.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.events.truncate(STANDING_EVENTS_MAX);
        for text in self.events.iter_mut().chain(&mut self.quarantined) {
            text.truncate(text.floor_char_boundary(STANDING_TEXT_BYTES_MAX));
        }
        self
    }

    /// The same as a terminal may show it: what came over the wire is not trusted with control characters.
    #[must_use]
    pub fn printable(mut self) -> Self {
        for text in self.events.iter_mut().chain(&mut self.quarantined) {
            text.retain(|c| !c.is_control());
        }
        self
    }
}
