//! How an array travels, and which way a client wants it.

use http::{HeaderMap, header};

/// How an array travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// numpy's `.npy`.
    Npy,
    /// Arrow's streaming format.
    ArrowStream,
    /// Arrow's file format.
    ArrowFile,
    /// What is known of it, as JSON; never how it is sent.
    Json,
}

impl Format {
    /// Every format, the one that is given where any will do first.
    pub const ALL: [Self; 4] = [Self::Npy, Self::ArrowStream, Self::ArrowFile, Self::Json];

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Npy => "application/x-npy",
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::ArrowFile => "application/vnd.apache.arrow.file",
            Self::Json => "application/json",
        }
    }

    /// The format in which a body of this media type is sent; `None` where it is none of ours.
    #[must_use]
    pub fn of_body(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        if essence == "application/octet-stream" {
            return Some(Self::Npy);
        }
        Self::ALL.into_iter().find(|format| format.media_type() == essence && *format != Self::Json)
    }

    /// The format that a request accepts best (RFC 9110, section 12.5.1); `None` where it accepts none.
    #[must_use]
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(header::ACCEPT).iter().peekable();
        if fields.peek().is_none() {
            return Some(Self::Npy);
        }
        let ranges: Vec<&str> =
            fields.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
        let mut best: Option<(u32, Self)> = None;
        for format in Self::ALL {
            let weight = weight(&ranges, format.media_type());
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format)
    }
}

/// Thousandths that the most specific range which matches gives; 0 where none does.
fn weight(ranges: &[&str], media_type: &str) -> u32 {
    let mut found = (0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or("").to_ascii_lowercase();
        let specific = match essence.as_str() {
            "*/*" => 1,
            "application/*" => 2,
            other if other == media_type => 3,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1000, |text| thousandths(text.trim()));
        if specific > found.0 {
            found = (specific, weight);
        }
    }
    found.1
}

fn thousandths(text: &str) -> u32 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let rest: String = rest.chars().chain("000".chars()).take(3).collect();
    match (whole, rest.parse::<u32>()) {
        ("1", _) => 1000,
        ("0", Ok(rest)) => rest,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_best_accepted_is_given() {
        let of = |value: &str| Format::accepted(&[(header::ACCEPT, value.parse().unwrap())].into_iter().collect());
        assert_eq!(Format::accepted(&HeaderMap::new()), Some(Format::Npy));
        for (value, format) in [
            ("*/*", Some(Format::Npy)),
            ("application/json", Some(Format::Json)),
            ("application/vnd.apache.arrow.stream", Some(Format::ArrowStream)),
            ("application/json;q=0.5, application/vnd.apache.arrow.file; q=0.9", Some(Format::ArrowFile)),
            ("application/x-npy;q=0, */*;q=0.1", Some(Format::ArrowStream)),
            ("application/*", Some(Format::Npy)),
            ("text/html", None),
            ("application/x-npy;q=0", None),
            ("application/x-npy;q=junk", None),
        ] {
            assert_eq!(of(value), format, "{value}");
        }
        assert_eq!(Format::of_body("application/octet-stream"), Some(Format::Npy));
        assert_eq!(Format::of_body("Application/X-NPY; charset=x"), Some(Format::Npy));
        assert_eq!(Format::of_body("application/json"), None);
    }
}
