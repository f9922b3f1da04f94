//! Contracts: where they are read from and how they are repeated.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::target::Target;

/// The quickstart's contract, as the product's documentation has it.
pub const QUICKSTART: &str = include_str!("../../../examples/quickstart.json");

/// The text of a contract file; `-` reads stdin. The text goes to the hub as it is: the hub says what is wrong.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<String> {
    if path.as_os_str() == "-" {
        return std::io::read_to_string(std::io::stdin()).context("cannot read a contract from stdin");
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A `curl` command that submits `contract`.
#[must_use]
pub fn curl(target: &Target, contract: &str) -> String {
    let compact = compact(contract);
    let key = target.key.as_deref().unwrap_or("<your_api_key>");
    let quoted = compact.replace('\'', "'\\''");
    format!(
        "curl -X POST {}/api/v0/ops/execute \\\n  -H \"Authorization: Bearer {key}\" \\\n  -H \"Content-Type: application/json\" \\\n  -d '{quoted}'\n",
        target.url
    )
}

/// JSON without the white space between its tokens; order and spelling stay.
fn compact(json: &str) -> String {
    let (mut text, mut quoted, mut escaped) = (String::with_capacity(json.len()), false, false);
    for character in json.chars() {
        if quoted || !character.is_ascii_whitespace() {
            text.push(character);
        }
        quoted ^= character == '"' && !escaped;
        escaped = quoted && character == '\\' && !escaped;
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn compact_changes_no_value() {
        assert_eq!(compact(r#"{ "b c": "x \" y",  "a": [1.0, "\\"] }"#), r#"{"b c":"x \" y","a":[1.0,"\\"]}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&compact(QUICKSTART)), value(QUICKSTART));
    }

    #[test]
    fn the_curl_line_survives_quotes() {
        let target = Target { url: "http://h:1".into(), key: None, ca: None };
        let line = curl(&target, r#"{ "a": "it's" }"#);
        assert!(line.ends_with("-d '{\"a\":\"it'\\''s\"}'\n"), "{line}");
    }
}
