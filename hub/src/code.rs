//! Failure codes as clients meet them: a status, a title, a fix.

use forge_contract::failure::Blame;
use forge_contract::{FailureCode, Family};
use http::StatusCode;

/// The problem type of a code.
#[must_use]
pub fn kind_of(code: FailureCode) -> String {
    format!("urn:forgepool:problem:{code}")
}

/// The HTTP status of a code, for refused requests and for jobs that failed while the client waited.
#[must_use]
pub fn status_of(code: FailureCode) -> StatusCode {
    use FailureCode as C;
    match code {
        C::RequestUnauthenticated => StatusCode::UNAUTHORIZED,
        C::RequestForbidden | C::RequestSignature | C::RequestUrlExpired => StatusCode::FORBIDDEN,
        C::RequestNotFound => StatusCode::NOT_FOUND,
        C::RequestMethod => StatusCode::METHOD_NOT_ALLOWED,
        C::RequestNotAcceptable => StatusCode::NOT_ACCEPTABLE,
        C::RequestPrecondition => StatusCode::PRECONDITION_FAILED,
        C::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        C::RequestIdempotency
        | C::RequestState
        | C::RequestCancelled
        | C::RequestOffset
        | C::RequestInProgress
        | C::RequestTaken
        | C::RequestKernelTaken
        | C::RequestKernelPending
        | C::RequestKernelRefused
        | C::RequestKernelYanked => StatusCode::CONFLICT,
        // It can be read and fits its description (RFC 9110, 15.5.21). What time mends is answered with 429 where it is
        // refused.
        C::RequestConflict
        | C::RequestUnknownOp
        | C::RequestArguments
        | C::RequestQuota
        | C::RequestDigest
        | C::RequestLength
        | C::RequestArray
        | C::RequestComponentFormat
        | C::RequestComponentInvalid
        | C::RequestComponentImport
        | C::RequestComponentExport
        | C::RequestComponentLimit
        | C::RequestComponentManifest
        | C::RequestComponentGolden => StatusCode::UNPROCESSABLE_ENTITY,
        C::RequestRange => StatusCode::RANGE_NOT_SATISFIABLE,
        C::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        C::RequestMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        C::SchedulingTimeout => StatusCode::GATEWAY_TIMEOUT,
        C::AggregationStorage => StatusCode::INTERNAL_SERVER_ERROR,
        C::AggregationDiskFull => StatusCode::INSUFFICIENT_STORAGE,
        other => match (other.family(), other.blame()) {
            (Family::Request, _) => StatusCode::BAD_REQUEST,
            (Family::Scheduling, _) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Blame::Kernel | Blame::Client) => StatusCode::UNPROCESSABLE_ENTITY,
            (Family::Agent | Family::Verification, _) => StatusCode::BAD_GATEWAY,
            (Family::Aggregation, _) => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// The code in words.
#[must_use]
pub fn title_of(code: FailureCode) -> String {
    let text = code.as_str().replace('_', " ");
    let (family, reason) = text.split_once('.').unwrap_or(("", &text));
    let mut title = format!("{family}: {reason}");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// What a caller can do about a code.
#[must_use]
pub fn fix_of(code: FailureCode) -> &'static str {
    use FailureCode as C;
    match code {
        C::RequestMalformed => "send one JSON object, complete, without duplicate keys",
        C::RequestSchema | C::RequestConflict | C::RequestArguments => {
            "correct the field that `pointer` and `detail` name; /api/v0/openapi.json describes every field"
        }
        C::RequestUnknownOp => "choose an op, version and profile from GET /api/v0/kernels",
        C::RequestUnauthenticated => {
            "send the project's key as `Authorization: Bearer <key>` or `X-FORGE-API-KEY: <key>`"
        }
        C::RequestForbidden => "use a key whose scope allows this",
        C::RequestNotFound => "check the path and that the key belongs to the right project",
        C::RequestQuota => {
            "wait where `Retry-After` says so; else ask for less, or whoever manages the project for a higher limit"
        }
        C::RequestTaken => "choose another id or name",
        C::RequestTooLarge => "stay below the limit that `detail` names; a contract's large inputs go by digest",
        C::RequestTimeout => "send the whole body promptly and with a true Content-Length",
        C::RequestMediaType => "send `Content-Type: application/json`, plain or `Content-Encoding: gzip`",
        C::RequestMethod => "use a method that the `Allow` header names",
        C::RequestIdempotency => "use a new Idempotency-Key for a new contract",
        C::RequestDigest => "declare the BLAKE3 digest of the very bytes that are sent, and send the upload anew",
        C::RequestLength => "declare the content's whole size as `bytes`, and send no more than that",
        C::RequestOffset => {
            "go on at the offset that `detail` and GET /api/v0/uploads/{digest} name, or at 0 to begin anew"
        }
        C::RequestInProgress => "wait for the other request to end, then go on",
        C::RequestPrecondition => "read it again, decide anew, and send the ETag that it has now",
        C::RequestNotAcceptable => "accept a media type that `detail` names",
        C::RequestArray => "do what `detail` says; numpy.save and pyarrow write what is read here",
        C::RequestRange => "ask for a range within the size that Content-Range names",
        C::RequestSignature => "use the URL as it was given, or ask for another with POST /api/v0/blobs/{digest}/urls",
        C::RequestUrlExpired => "ask for another URL with POST /api/v0/blobs/{digest}/urls",
        C::AggregationDiskFull => "send it again once the hub's operator has made room",
        C::RequestState => "ask again once it is in the state that `detail` names",
        C::RequestCancelled => "submit the contract again if the result is still wanted",
        C::RequestComponentFormat
        | C::RequestComponentInvalid
        | C::RequestComponentImport
        | C::RequestComponentExport
        | C::RequestComponentLimit
        | C::RequestComponentManifest => {
            "do what `detail` says, build again, and see what `forgepool kernel check` finds"
        }
        C::RequestComponentGolden => "record the known answers with `forgepool kernel check --record` and build again",
        C::RequestKernelTaken => "raise `version` in kernel.toml: a published version never changes",
        C::RequestKernelPending => "wait until a verifier has run its known answers: GET the kernel shows its state",
        C::RequestKernelRefused => "mend what its `reason` says and upload it again",
        C::RequestKernelYanked => {
            "choose another version from GET /api/v0/kernels; jobs that ran on this one still replay"
        }
        C::SchedulingNoAgents | C::SchedulingTooFewAgents => "start agents, or relax the policy, and submit again",
        C::SchedulingTimeout => "raise policy.timeout_ms or add agents; the same contract gives the same result later",
        C::SchedulingShutdown => "submit again in a moment",
        other => match other.blame() {
            Blame::Client | Blame::Kernel => {
                "change the arguments; another attempt with the same contract ends the same way"
            }
            Blame::Machine | Blame::Agent | Blame::Platform => {
                "submit the same contract again; tell the operator the trace id if it persists"
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_client_or_server_status_and_words() {
        for code in FailureCode::ALL {
            let status = status_of(*code);
            assert!(status.is_client_error() || status.is_server_error(), "{code}");
            assert!(!title_of(*code).is_empty() && !fix_of(*code).is_empty(), "{code}");
        }
        assert_eq!(title_of(FailureCode::RequestUnknownOp), "Request: unknown op");
        assert_eq!(status_of(FailureCode::RequestSchema), StatusCode::BAD_REQUEST);
        assert_eq!(status_of(FailureCode::RequestArguments), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(status_of(FailureCode::AgentTrap), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(status_of(FailureCode::SchedulingNoAgents), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status_of(FailureCode::VerificationMismatch), StatusCode::BAD_GATEWAY);
    }
}
