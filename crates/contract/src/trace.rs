//! Where a piece of work belongs in a trace (W3C Trace Context, level 1).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::canon::Writer;
use crate::digest::Digest;

/// A trace and the span in it that what follows is done for.
///
/// It is no part of a computation: what is computed never depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace; zeros for none.
    pub trace: [u8; 16],
    /// The span; zeros for the root of the trace.
    pub span: [u8; 8],
    /// Whether spans are recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The context of a `traceparent` header; `None` where it is none.
    ///
    /// A version above 0 is read as version 0, whatever follows (section 4.3 of the recommendation).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        let known = version != [0xff] && (version != [0] || parts.next().is_none());
        let named = trace != [0; 16] && span != [0; 8];
        (known && named).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// A trace without a span, by what its texts call it: 32 hexadecimal digits stand for themselves, any other text
    /// for the start of its digest.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let own = hex(text).filter(|trace| *trace != [0; 16]);
        let trace = own.unwrap_or_else(|| start(&Digest::tagged("forgepool v1 trace", text.as_bytes())));
        Self { trace, span: [0; 8], sampled: true }
    }

    /// The span of something within this one: always the same for the same thing, so that nobody needs to remember it.
    #[must_use]
    pub fn child(&self, of: &str, number: u128) -> Self {
        let mut w = Writer::with_capacity(80);
        w.bytes(&self.trace);
        w.bytes(&self.span);
        w.str(of);
        w.bytes(&number.to_be_bytes());
        Self { span: start(&Digest::tagged("forgepool v1 span", &w.into_bytes())), ..*self }
    }

    /// The root of the trace.
    #[must_use]
    pub const fn root(&self) -> Self {
        Self { span: [0; 8], ..*self }
    }

    /// The trace as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }
}

/// The first bytes of a digest.
fn start<const N: usize>(digest: &Digest) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Lower-case hexadecimal digits of exactly these bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for TraceContext {
    /// As a `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = u64::from_be_bytes(self.span);
        write!(f, "00-{}-{span:016x}-{:02x}", self.trace_id(), u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_recommendations_examples_are_read_and_written() {
        let context = TraceContext::parse(TEXT).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span, context.sampled), (0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(), true));
        assert_eq!(context.to_string(), TEXT);
        let unsampled = TEXT.replace("-01", "-00");
        assert!(!TraceContext::parse(&unsampled).unwrap().sampled);
        assert!(TraceContext::parse(&TEXT.replacen("00", "cc", 1)).is_some(), "a later version");
        assert!(TraceContext::parse(&format!("{}-more", TEXT.replacen("00", "cc", 1))).is_some());
        for bad in [
            "",
            "00",
            &TEXT.to_uppercase(),
            &format!("{TEXT}-more"),
            &TEXT.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_of_traces_become_ids() {
        let own = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(TraceContext::of_text(own).trace_id(), own);
        let (a, b) = (TraceContext::of_text("trace-1"), TraceContext::of_text("trace-2"));
        assert_ne!(a.trace, b.trace);
        assert_ne!(TraceContext::of_text(&"0".repeat(32)).trace, [0; 16]);
        assert_eq!(a, TraceContext::of_text("trace-1"));
        let job = a.child("job", 1);
        let spans = [job, a.child("job", 2), a.child("shard", 1), b.child("job", 1), job.child("job", 1)];
        assert_eq!((job.root(), job.child("job", 1).trace), (a, a.trace));
        for (at, one) in spans.iter().enumerate() {
            assert!(spans.iter().skip(at + 1).all(|other| one.span != other.span));
        }
    }
}
