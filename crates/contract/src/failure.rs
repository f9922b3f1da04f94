//! Failures: a closed set of stable codes in five families.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Where in a job's life a failure belongs (product page "Kernel execution model", section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The request was not acceptable: schema, authentication, quota.
    Request,
    /// No placement could be found in time.
    Scheduling,
    /// Work failed where it ran.
    Agent,
    /// Results could not be trusted.
    Verification,
    /// Fragments could not be folded.
    Aggregation,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $family:ident, $blame:ident;)*) => {
        /// A stable code: what programs match on. Its text is `family.reason` and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FailureCode { $($(#[$doc])* $variant,)* }

        impl FailureCode {
            /// Every code, in order.
            pub const ALL: &'static [FailureCode] = &[$(FailureCode::$variant,)*];

            /// The stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(FailureCode::$variant => $text,)* }
            }

            /// The family.
            #[must_use]
            pub const fn family(self) -> Family {
                match self { $(FailureCode::$variant => Family::$family,)* }
            }

            /// Who answers for it.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $(FailureCode::$variant => Blame::$blame,)* }
            }
        }
    };
}

/// Who answers for a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The caller: another attempt gives the same.
    Client,
    /// The kernel with these arguments: every honest agent says the same, nobody is punished.
    Kernel,
    /// The machine or the network: try elsewhere, no strike.
    Machine,
    /// The agent: its answer breaks the protocol or was refuted.
    Agent,
    /// The platform itself.
    Platform,
}

codes! {
    /// The body is not JSON.
    RequestMalformed = "request.malformed", Request, Client;
    /// A field is missing, unknown, of the wrong type or out of range.
    RequestSchema = "request.schema", Request, Client;
    /// Fields contradict each other, or what they name.
    RequestConflict = "request.conflict", Request, Client;
    /// No such operation, version or profile.
    RequestUnknownOp = "request.unknown_op", Request, Client;
    /// Arguments do not satisfy the profile's schema.
    RequestArguments = "request.arguments", Request, Client;
    /// No valid credential.
    RequestUnauthenticated = "request.unauthenticated", Request, Client;
    /// The credential does not allow this.
    RequestForbidden = "request.forbidden", Request, Client;
    /// No such thing, or not this project's.
    RequestNotFound = "request.not_found", Request, Client;
    /// A limit of the project or platform is reached.
    RequestQuota = "request.quota", Request, Client;
    /// The body is larger than allowed.
    RequestTooLarge = "request.too_large", Request, Client;
    /// The body came too slowly or ended early.
    RequestTimeout = "request.timeout", Request, Client;
    /// The body is neither `application/json` nor a known encoding of it.
    RequestMediaType = "request.media_type", Request, Client;
    /// The route does not know this method.
    RequestMethod = "request.method", Request, Client;
    /// The id or name is another one's already.
    RequestTaken = "request.taken", Request, Client;
    /// The same idempotency key with another body.
    RequestIdempotency = "request.idempotency_mismatch", Request, Client;
    /// The content's digest is not the one declared.
    RequestDigest = "request.digest_mismatch", Request, Client;
    /// The body is longer than the size declared.
    RequestLength = "request.length_mismatch", Request, Client;
    /// The body does not go on where the upload stands.
    RequestOffset = "request.offset", Request, Client;
    /// Another request is at the same upload.
    RequestInProgress = "request.in_progress", Request, Client;
    /// The range asked for is not within the content.
    RequestRange = "request.range", Request, Client;
    /// A condition of the request, such as `If-Match`, does not hold.
    RequestPrecondition = "request.precondition", Request, Client;
    /// None of the media types that the request accepts can be given.
    RequestNotAcceptable = "request.not_acceptable", Request, Client;
    /// The bytes are no array, or one that is not kept.
    RequestArray = "request.array", Request, Client;
    /// A signed URL was altered, or is not of this hub.
    RequestSignature = "request.signature", Request, Client;
    /// A signed URL is out of its time.
    RequestUrlExpired = "request.url_expired", Request, Client;
    /// The thing is not in the state that the request needs.
    RequestState = "request.state", Request, Client;
    /// The client cancelled the job.
    RequestCancelled = "request.cancelled", Request, Client;
    /// The bytes uploaded as a kernel are no WebAssembly component.
    RequestComponentFormat = "request.component_format", Request, Client;
    /// A component is not valid, or uses a feature that is off.
    RequestComponentInvalid = "request.component_invalid", Request, Client;
    /// A component imports what no kernel may.
    RequestComponentImport = "request.component_import", Request, Client;
    /// A component lacks the kernel's export, or has it with another type.
    RequestComponentExport = "request.component_export", Request, Client;
    /// A component is beyond a limit of admission, or could not be parsed within those of parsing.
    RequestComponentLimit = "request.component_limit", Request, Client;
    /// A component's manifest is missing or breaks a rule.
    RequestComponentManifest = "request.component_manifest", Request, Client;
    /// A known answer of a component is missing, cannot be run, or is not what a verifier found.
    RequestComponentGolden = "request.component_golden", Request, Client;
    /// The name and version of a kernel are taken by other bytes.
    RequestKernelTaken = "request.kernel_taken", Request, Client;
    /// The kernel is not admitted yet.
    RequestKernelPending = "request.kernel_pending", Request, Client;
    /// The kernel was refused.
    RequestKernelRefused = "request.kernel_refused", Request, Client;
    /// The kernel was yanked: it replays and runs nothing new.
    RequestKernelYanked = "request.kernel_yanked", Request, Client;

    /// No agent that could run the job was there in time.
    SchedulingNoAgents = "scheduling.no_agents", Scheduling, Platform;
    /// Fewer distinct agents than the policy strictly asks for.
    SchedulingTooFewAgents = "scheduling.too_few_agents", Scheduling, Platform;
    /// The job's time ran out.
    SchedulingTimeout = "scheduling.timeout", Scheduling, Platform;
    /// The hub is shutting down.
    SchedulingShutdown = "scheduling.shutdown", Scheduling, Platform;

    /// The kernel refused its arguments.
    AgentKernelArguments = "agent.kernel_arguments", Agent, Kernel;
    /// The kernel refused an input.
    AgentKernelInput = "agent.kernel_input", Agent, Kernel;
    /// The kernel's result would not be finite.
    AgentKernelNumeric = "agent.kernel_numeric", Agent, Kernel;
    /// The kernel refused for a reason of its own.
    AgentKernelOther = "agent.kernel_other", Agent, Kernel;
    /// The unit used all its fuel.
    AgentFuelExhausted = "agent.fuel_exhausted", Agent, Kernel;
    /// The unit asked for more memory or table than its limit.
    AgentMemoryLimit = "agent.memory_limit", Agent, Kernel;
    /// The unit trapped (unreachable, out of bounds, division by zero, ...).
    AgentTrap = "agent.trap", Agent, Kernel;
    /// The unit called itself too deeply. No verdict: the depth differs between engines.
    AgentStackOverflow = "agent.stack_overflow", Agent, Kernel;
    /// The unit's fragment is not what the manifest declares.
    AgentOutputInvalid = "agent.output_invalid", Agent, Kernel;
    /// The unit's fragment is larger than its limit.
    AgentOutputTooLarge = "agent.output_too_large", Agent, Kernel;
    /// The component could not be compiled within its limits.
    AgentCompile = "agent.compile", Agent, Kernel;
    /// The component or an input could not be fetched or did not match its digest.
    AgentFetch = "agent.fetch", Agent, Machine;
    /// The worker process died (out of memory, killed, crashed).
    AgentWorkerLost = "agent.worker_lost", Agent, Machine;
    /// The shard took longer than its lease.
    AgentDeadline = "agent.deadline", Agent, Machine;
    /// The agent disconnected.
    AgentLost = "agent.lost", Agent, Machine;
    /// The agent is draining or busy.
    AgentDeclined = "agent.declined", Agent, Machine;
    /// The agent's message breaks the protocol.
    AgentProtocol = "agent.protocol", Agent, Agent;
    /// A shard failed too many times.
    AgentAttemptsExhausted = "agent.attempts_exhausted", Agent, Platform;

    /// The report does not satisfy the structural rules of its parts.
    VerificationStructure = "verification.structure", Verification, Agent;
    /// Copies of a shard disagree.
    VerificationMismatch = "verification.mismatch", Verification, Agent;
    /// No majority among the copies of a shard.
    VerificationUnsettled = "verification.unsettled", Verification, Platform;
    /// The policy asks for more distinct agents than there are.
    VerificationTooFewAgents = "verification.too_few_agents", Verification, Platform;

    /// Fragments of neighbouring units do not fit together.
    AggregationMismatch = "aggregation.mismatch", Aggregation, Kernel;
    /// A count or sum left its range.
    AggregationOverflow = "aggregation.overflow", Aggregation, Kernel;
    /// The folded result does not add up to the work asked for.
    AggregationIncomplete = "aggregation.incomplete", Aggregation, Kernel;
    /// The hub could not record the job.
    AggregationStorage = "aggregation.storage", Aggregation, Platform;
    /// The hub's disk has no room.
    AggregationDiskFull = "aggregation.disk_full", Aggregation, Platform;
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::str::FromStr for FailureCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().copied().find(|code| code.as_str() == text);
        found.ok_or_else(|| UnknownCode { text: text.to_owned() })
    }
}

/// A text that is no failure code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a failure code")]
pub struct UnknownCode {
    /// The text.
    pub text: String,
}

impl Serialize for FailureCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FailureCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A failure: a code, a sentence for people, and what is needed to act on it.
///
/// In JSON a missing pointer or unit is left out; in a binary format every field is written, since there a reader
/// knows fields only by their place.
#[derive(Clone, Debug, PartialEq, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// One sentence: what was wrong, the rule, the fix.
    pub detail: String,
    /// JSON pointer (RFC 6901) into the request, where one place is to blame.
    #[serde(default)]
    pub pointer: Option<String>,
    /// The unit, where one is to blame.
    #[serde(default)]
    pub unit: Option<u64>,
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let keeps_empty = !serializer.is_human_readable();
        let mut fields = serializer.serialize_struct("Failure", 4)?;
        fields.serialize_field("code", &self.code)?;
        fields.serialize_field("detail", &self.detail)?;
        if keeps_empty || self.pointer.is_some() {
            fields.serialize_field("pointer", &self.pointer)?;
        }
        if keeps_empty || self.unit.is_some() {
            fields.serialize_field("unit", &self.unit)?;
        }
        fields.end()
    }
}

impl Failure {
    /// A failure with neither pointer nor unit.
    #[must_use]
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), pointer: None, unit: None }
    }

    /// The same, at a place in the request.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// The same, at a unit.
    #[must_use]
    pub fn in_unit(mut self, unit: u64) -> Self {
        self.unit = Some(unit);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_name_their_family() {
        let texts: BTreeSet<&str> = FailureCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), FailureCode::ALL.len());
        for code in FailureCode::ALL {
            let family = serde_json::to_value(code.family()).unwrap();
            assert_eq!(code.as_str().split('.').next(), family.as_str());
            assert_eq!(code.as_str().parse::<FailureCode>().unwrap(), *code);
        }
    }
}
