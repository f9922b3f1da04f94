//! Arrays by name: how a contract names one as an input. The name is for people; what a job reads is the digest.

use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::key::{self, KeyError};

/// Highest version of an array.
pub const VERSION_MAX: u64 = (1 << 53) - 1;

/// An array as an argument names it: `{"vmem": "losses", "version": 3}`. Without a version the latest is meant.
///
/// The hub writes version and digest into the contract when it accepts a job, so that the recorded contract is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The array's name.
    pub name: String,
    /// The version; from 1.
    pub version: Option<u64>,
    /// The digest of its file.
    pub digest: Option<Digest>,
}

/// Why an argument is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is neither a digest nor an object that names an array.
    #[error("expected the digest of stored content, 64 hexadecimal digits, or {{\"vmem\": NAME, \"version\": N}}")]
    Shape,
    /// The name breaks a rule.
    #[error("vmem: {0}")]
    Name(#[from] KeyError),
    /// The version is no version.
    #[error("version: expected an integer from 1 to {VERSION_MAX}; leave it out for the latest")]
    Version,
    /// The digest is none.
    #[error("digest: expected 64 hexadecimal digits; leave it out, the hub fills it in")]
    Digest,
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// See [`ReferenceError`].
    pub fn parse(value: &Value) -> Result<Self, ReferenceError> {
        let members = value.as_object().ok_or(ReferenceError::Shape)?;
        if members.keys().any(|name| !matches!(name.as_str(), "vmem" | "version" | "digest")) {
            return Err(ReferenceError::Shape);
        }
        let name = members.get("vmem").and_then(Value::as_str).ok_or(ReferenceError::Shape)?;
        key::word(name)?;
        let version = members.get("version").map(|value| {
            // Numbers of a contract went through canonical JSON, which knows doubles only.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and below 2^53")]
            let whole = |number: f64| (number.fract() == 0.0 && number >= 0.0).then_some(number as u64);
            let number = value.as_u64().or_else(|| value.as_f64().and_then(whole));
            number.filter(|number| (1..=VERSION_MAX).contains(number)).ok_or(ReferenceError::Version)
        });
        let digest = members
            .get("digest")
            .map(|value| value.as_str().and_then(|text| text.parse().ok()).ok_or(ReferenceError::Digest));
        Ok(Self { name: name.to_owned(), version: version.transpose()?, digest: digest.transpose()? })
    }

    /// The reference as JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut members = Map::new();
        members.insert("vmem".into(), self.name.clone().into());
        members.extend(self.version.map(|version| ("version".to_owned(), version.into())));
        members.extend(self.digest.map(|digest| ("digest".to_owned(), digest.to_string().into())));
        Value::Object(members)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_comes_back_as_it_was() {
        let digest = Digest::of(b"x").to_string();
        for value in [
            json!({"vmem": "losses"}),
            json!({"vmem": "losses", "version": 3}),
            json!({"vmem": "l.o-s_s", "version": 9_007_199_254_740_991_u64, "digest": digest}),
        ] {
            assert_eq!(Reference::parse(&value).unwrap().value(), value);
        }
        assert_eq!(Reference::parse(&json!({"vmem": "a", "version": 3.0})).unwrap().version, Some(3));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (value, why) in [
            (json!("text"), ReferenceError::Shape),
            (json!({}), ReferenceError::Shape),
            (json!({"vmem": 3}), ReferenceError::Shape),
            (json!({"vmem": "a", "x": 1}), ReferenceError::Shape),
            (json!({"vmem": ".."}), ReferenceError::Name(KeyError::First)),
            (json!({"vmem": "a", "version": 0}), ReferenceError::Version),
            (json!({"vmem": "a", "version": -1}), ReferenceError::Version),
            (json!({"vmem": "a", "version": 1.5}), ReferenceError::Version),
            (json!({"vmem": "a", "version": "1"}), ReferenceError::Version),
            (json!({"vmem": "a", "digest": "0"}), ReferenceError::Digest),
        ] {
            assert_eq!(Reference::parse(&value), Err(why), "{value}");
        }
    }
}
