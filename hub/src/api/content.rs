//! Stored bytes as HTTP gives them: tagged, in ranges, never in memory whole where they lie in a file.

use std::ops::Range;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use forge_contract::{Digest, FailureCode};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::problem::Problem;
use crate::store::Source;

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// What of the content a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A range that begins after the end.
    Nothing,
}

/// Reads a `Range` field (RFC 9110, 14.2): one range of bytes. Several, another unit or no sense mean the whole.
fn wanted(range: &str, bytes: u64) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Wanted::Whole;
    }
    // Numbers too large for any content are as good as the largest.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (from, to) = match (first, last) {
        ("", last) => (bytes.saturating_sub(number(last)), if number(last) == 0 { 0 } else { bytes }),
        (first, "") => (number(first), bytes),
        (first, last) if number(last) < number(first) => return Wanted::Whole,
        (first, last) => (number(first), number(last).saturating_add(1).min(bytes)),
    };
    if from >= to { Wanted::Nothing } else { Wanted::Part(from..to) }
}

fn lists(headers: &HeaderMap, name: header::HeaderName, tag: &str) -> bool {
    let fields = headers.get_all(name);
    let mut tags = fields.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.any(|one| one.trim() == "*" || one.trim().trim_start_matches("W/") == tag)
}

/// What stored bytes are called when they are given out.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Their entity tag, in its quotes.
    pub(super) tag: String,
    /// Their media type.
    pub(super) media_type: HeaderValue,
    /// How long whoever has them may use them without asking.
    pub(super) cache: &'static str,
}

/// For what never changes under its name.
pub(super) const FOR_EVER: &str = "private, max-age=31536000, immutable";
/// For what may change: ask every time, with the tag.
pub(super) const ASK: &str = "private, no-cache";

impl Shown {
    /// Content of this digest, which never changes.
    pub(super) fn content(digest: &Digest) -> Self {
        let media_type = HeaderValue::from_static("application/octet-stream");
        Self { tag: format!("\"{digest}\""), media_type, cache: FOR_EVER }
    }
}

/// The answer to a request for bytes that are there.
///
/// # Errors
/// `request.range` where the range begins after the end; `aggregation.storage`.
pub(super) async fn serve(headers: &HeaderMap, shown: &Shown, source: Source) -> Result<Response, Problem> {
    let (tag, bytes) = (&shown.tag, source.bytes());
    let text = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    let always = [
        (header::ETAG, text(tag.clone())),
        (header::CACHE_CONTROL, HeaderValue::from_static(shown.cache)),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ];
    if lists(headers, header::IF_NONE_MATCH, tag) {
        return Ok((StatusCode::NOT_MODIFIED, always).into_response());
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    // A condition that names other bytes asks for the whole.
    let range = range.filter(|_| headers.get(header::IF_RANGE).is_none_or(|one| one.as_bytes() == tag.as_bytes()));
    let wanted = range.map_or(Wanted::Whole, |range| wanted(range, bytes));
    let (status, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..bytes),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let detail = format!("the header Range: it begins after the content's end, at {bytes} bytes");
            let problem = Problem::of(FailureCode::RequestRange, detail);
            return Err(problem.with_header(header::CONTENT_RANGE, text(format!("bytes */{bytes}"))));
        }
    };
    let mut response = (status, always, part(source, &range).await?).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, shown.media_type.clone());
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        fields.insert(header::CONTENT_RANGE, text(format!("bytes {}-{}/{bytes}", range.start, range.end - 1)));
    }
    Ok(response)
}

async fn part(source: Source, range: &Range<u64>) -> Result<Body, Problem> {
    match source {
        Source::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            if range.start > 0 {
                file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(unreadable)?;
            }
            let length = range.end - range.start;
            Ok(Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK_BYTES)))
        }
        Source::Bytes(bytes) => {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            Ok(Body::from(bytes.slice(place(range.start)..place(range.end))))
        }
    }
}

fn unreadable(error: std::io::Error) -> Problem {
    tracing::error!(%error, "stored content cannot be read");
    Problem::of(FailureCode::AggregationStorage, "the hub cannot read the content from its disk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let part = |range| wanted(range, 10);
        assert_eq!(part("bytes=0-4"), Wanted::Part(0..5));
        assert_eq!(part("bytes=9-"), Wanted::Part(9..10));
        assert_eq!(part("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(part("bytes=-99"), Wanted::Part(0..10));
        assert_eq!(part("bytes=5-99999999999999999999"), Wanted::Part(5..10));
        for nothing in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(part(nothing), Wanted::Nothing, "{nothing}");
        }
        for whole in ["bytes=0-1,4-5", "bytes=5-4", "bytes=-", "lines=0-4", "bytes=a-b", "bytes=+1-2", "", "bytes"] {
            assert_eq!(part(whole), Wanted::Whole, "{whole}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
    }
}
