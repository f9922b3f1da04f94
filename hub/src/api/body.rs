//! Reading a request body: bounded in size, in time, and in what it may unpack to.

use std::io::Read as _;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use forge_contract::limits::REQUEST_BYTES_MAX;
use forge_contract::{FailureCode, envelope};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::plain::Plain;
use super::problem::Problem;

/// A body a little too large is read to its end and thrown away: a client that is cut off while it still writes sees a
/// broken connection instead of the answer. Beyond this it is cut off.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// The JSON bytes of a request.
///
/// # Errors
/// `request.media_type`, `request.too_large` (as sent, or unpacked), `request.timeout` (too slow, or ended early),
/// `request.malformed` (not the gzip it claims to be).
pub async fn read(headers: &HeaderMap, body: Body, time: Duration) -> Result<Bytes, Problem> {
    is_json(headers)?;
    let packed = is_gzip(headers)?;
    let bytes = collected(headers, body, time).await?;
    if packed { unpack(&bytes) } else { Ok(bytes) }
}

async fn collected(headers: &HeaderMap, body: Body, time: Duration) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > LINGER_BYTES_MAX as u64) {
        return Err(too_large("the body as declared"));
    }
    let collected = tokio::time::timeout(time, collect(body)).await;
    collected.map_err(|_| {
        Problem::of(FailureCode::RequestTimeout, format!("the body was not complete after {} ms", time.as_millis()))
    })?
}

/// The bytes of a request, as they are, at most [`REQUEST_BYTES_MAX`].
///
/// # Errors
/// `request.media_type` where they are packed, `request.too_large`, `request.timeout`.
pub async fn read_raw(headers: &HeaderMap, body: Body, time: Duration) -> Result<Bytes, Problem> {
    if is_gzip(headers)? {
        let detail = "Content-Encoding: what is kept is kept as it is sent; leave the header out";
        return Err(Problem::of(FailureCode::RequestMediaType, detail));
    }
    collected(headers, body, time).await
}

/// A request's JSON, read as strictly as a contract: no key twice, nothing nested without end, every number exact.
///
/// # Errors
/// Those of [`read`]; `request.malformed`, `request.schema` where a number is not exact.
pub async fn read_json(headers: &HeaderMap, body: Body, time: Duration) -> Result<Value, Problem> {
    let mut value = envelope::read_json(&read(headers, body, time).await?)?;
    make_whole(&mut value);
    Ok(value)
}

/// A request's JSON as a small document of the API's own.
///
/// # Errors
/// Those of [`read_json`]; `request.schema` at the first member that is not as it should be.
pub async fn read_as<T: serde::de::DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    time: Duration,
) -> Result<T, Problem> {
    let value = read_json(headers, body, time).await?;
    if !value.is_object() {
        let detail = format!("the body: expected an object, found {}", envelope::found(&value));
        return Err(Problem::of(FailureCode::RequestSchema, detail));
    }
    typed(value, "")
}

/// The same where a request may come without a body.
///
/// # Errors
/// Those of [`read_as`].
pub async fn read_or_default<T: serde::de::DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
    time: Duration,
) -> Result<T, Problem> {
    if body.size_hint().exact() == Some(0) { Ok(T::default()) } else { read_as(headers, body, time).await }
}

/// A value of a request as what it should be; `at` is its place in the body.
///
/// # Errors
/// `request.schema` at the first member that is not as it should be.
pub fn typed<T: serde::de::DeserializeOwned>(value: Value, at: &str) -> Result<T, Problem> {
    serde_path_to_error::deserialize(Plain(value)).map_err(|error| {
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", envelope::escape(key)),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        };
        let place: String = std::iter::once(at.to_owned()).chain(error.path().iter().map(step)).collect();
        let detail = format!("{}: {}", envelope::name(&place), error.inner());
        let problem = Problem::of(FailureCode::RequestSchema, detail);
        if place.is_empty() { problem } else { problem.at(&place) }
    })
}

/// Writes whole numbers as integers: `2.0` and `2e0` are the integer 2 (JSON Schema 2020-12, 4.2.3).
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = |float: f64| float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && whole(*float)) {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
                let integer = float as i64;
                *value = Value::from(integer);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(members) => members.values_mut().for_each(make_whole),
        _ => {}
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Problem> {
    let (mut gathered, mut seen) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::of(FailureCode::RequestTimeout, "the body ended before the length its headers promise")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= REQUEST_BYTES_MAX {
            gathered.extend_from_slice(&data);
        } else if seen > LINGER_BYTES_MAX {
            break;
        }
    }
    if seen > REQUEST_BYTES_MAX { Err(too_large("the body")) } else { Ok(gathered.freeze()) }
}

/// Unpacks at most one byte more than is allowed, so that a bomb costs no more than an honest body.
fn unpack(packed: &[u8]) -> Result<Bytes, Problem> {
    let mut plain = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64 + 1;
    flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut plain).map_err(|error| {
        Problem::of(FailureCode::RequestMalformed, format!("the body is not the gzip it claims to be: {error}"))
    })?;
    if plain.len() > REQUEST_BYTES_MAX { Err(too_large("the unpacked body")) } else { Ok(plain.into()) }
}

fn too_large(what: &str) -> Problem {
    Problem::of(FailureCode::RequestTooLarge, format!("{what} has more than {REQUEST_BYTES_MAX} bytes"))
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("(not text)"));
    let essence = given.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let found = given.map_or_else(|| "none".into(), |given| format!("'{given}'"));
    Err(Problem::of(FailureCode::RequestMediaType, format!("Content-Type: expected application/json, found {found}")))
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(false) };
    let text = value.to_str().unwrap_or("(not text)").trim().to_ascii_lowercase();
    match text.as_str() {
        "gzip" | "x-gzip" => Ok(true),
        "identity" | "" => Ok(false),
        other => {
            let detail = format!("Content-Encoding: expected gzip or identity, found '{other}'");
            Err(Problem::of(FailureCode::RequestMediaType, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    async fn code(headers: &[(&'static str, &'static str)], body: Vec<u8>) -> Result<Bytes, FailureCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        read(&map, Body::from(body), Duration::from_secs(5)).await.map_err(|problem| problem.code())
    }

    #[tokio::test]
    async fn limits_hold_packed_and_plain() {
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        const GZIP: (&str, &str) = ("content-encoding", "gzip");
        let full = vec![b' '; REQUEST_BYTES_MAX];
        assert_eq!(code(&[JSON], full.clone()).await.unwrap().len(), REQUEST_BYTES_MAX);
        assert_eq!(code(&[JSON, GZIP], gzip(&full)).await.unwrap().len(), REQUEST_BYTES_MAX);
        let more = vec![b' '; REQUEST_BYTES_MAX + 1];
        assert_eq!(code(&[JSON], more.clone()).await, Err(FailureCode::RequestTooLarge));
        assert_eq!(code(&[JSON, GZIP], gzip(&more)).await, Err(FailureCode::RequestTooLarge));
        assert_eq!(code(&[JSON, GZIP], b"no gzip".to_vec()).await, Err(FailureCode::RequestMalformed));
        let mut cut = gzip(b"{}");
        cut.truncate(cut.len() - 4);
        assert_eq!(code(&[JSON, GZIP], cut).await, Err(FailureCode::RequestMalformed));
        assert_eq!(code(&[], b"{}".to_vec()).await, Err(FailureCode::RequestMediaType));
        assert_eq!(code(&[("content-type", "text/plain")], b"{}".to_vec()).await, Err(FailureCode::RequestMediaType));
        assert_eq!(code(&[JSON, ("content-encoding", "br")], b"{}".to_vec()).await, Err(FailureCode::RequestMediaType));
        assert_eq!(code(&[JSON, ("content-length", "20000000")], vec![]).await, Err(FailureCode::RequestTooLarge));
    }

    #[tokio::test]
    async fn every_mistake_has_its_place() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wish {
            count: u64,
            #[serde(default)]
            more: Vec<u8>,
        }
        let of = async |body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            read_as::<Wish>(&headers, Body::from(body.to_owned()), Duration::from_secs(5)).await
        };
        let wish = of(r#"{"count": 2.0, "more": [3e0]}"#).await.unwrap();
        assert_eq!((wish.count, wish.more), (2, vec![3]));
        use FailureCode::{RequestMalformed as Malformed, RequestSchema as Schema};
        for (body, code, pointer, says) in [
            ("", Malformed, None, "ends"),
            ("[]", Schema, None, "the body: expected an object"),
            ("null", Schema, None, "the body: expected an object"),
            (r#"{"count": 1, "count": 2}"#, Malformed, Some("/count"), "twice"),
            (r#"{"count": NaN}"#, Malformed, Some("/count"), "finite"),
            (r#"{"count": 1e999}"#, Malformed, Some("/count"), "range"),
            (r#"{"count": 18446744073709551615}"#, Schema, Some("/count"), "exact"),
            (r#"{"count": -1}"#, Schema, Some("/count"), "count: invalid value"),
            (r#"{"count": "x"}"#, Schema, Some("/count"), "count: invalid type: string"),
            (r#"{"count": 1.5}"#, Schema, Some("/count"), "floating point"),
            (r#"{"count": 1, "more": [1, 256]}"#, Schema, Some("/more/1"), "more.1: invalid value"),
            ("{}", Schema, None, "`count`"),
            (r#"{"count": 1, "cuont": 2}"#, Schema, Some("/cuont"), "`cuont`, expected"),
        ] {
            let problem = of(body).await.unwrap_err();
            assert_eq!((problem.code(), problem.failure().pointer.as_deref()), (code, pointer), "{body}: {problem:?}");
            assert!(problem.failure().detail.contains(says), "{body}: {problem:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let given = read(&headers, never, Duration::from_secs(3600)).await;
        assert_eq!(given.unwrap_err().code(), FailureCode::RequestTimeout);
    }
}
