//! What ids and names look like.

use forge_contract::FailureCode;

use super::problem::Problem;

/// Longest id of an organisation or project, bytes.
const ID_BYTES_MAX: usize = 40;
/// What [`id`] takes, as a regular expression.
pub(super) const ID_PATTERN: &str = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$";
/// Longest name, characters.
pub(super) const NAME_CHARS_MAX: usize = 128;
/// Longest name of a region, characters.
pub(super) const REGION_CHARS_MAX: usize = 64;

fn wrong(field: &str, rule: &str, found: &str) -> Problem {
    let short: String = found.chars().take(60).collect();
    Problem::of(FailureCode::RequestSchema, format!("{field}: expected {rule}, found {short:?}"))
        .at(&format!("/{field}"))
}

/// An id that people choose: it stands in paths and in the names of kernels.
///
/// # Errors
/// `request.schema` at the field.
pub fn id(field: &str, text: String) -> Result<String, Problem> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    let good = bytes.len() <= ID_BYTES_MAX && bytes.iter().all(|byte| inner(*byte));
    if good && bytes.first().is_some_and(u8::is_ascii_lowercase) && ends(bytes.last()) {
        return Ok(text);
    }
    let rule = "1 to 40 lower-case letters, digits and '-', a letter first and no '-' last";
    Err(wrong(field, rule, &text))
}

/// A name for people.
///
/// # Errors
/// `request.schema` at the field.
pub fn name(field: &str, text: String) -> Result<String, Problem> {
    words(field, text, 1, NAME_CHARS_MAX)
}

/// Text for people of so many characters, none of them a control character.
///
/// # Errors
/// `request.schema` at the field.
pub fn words(field: &str, text: String, chars_min: usize, chars_max: usize) -> Result<String, Problem> {
    let fits = (chars_min..=chars_max).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let rule = format!("{chars_min} to {chars_max} characters, none of them a control character");
    Err(wrong(field, &rule, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_words() {
        for good in ["a", "acme", "acme-2", "a1"] {
            assert!(id("id", good.into()).is_ok(), "{good}");
        }
        let long = "a".repeat(41);
        let longest = "a".repeat(40);
        assert!(id("id", longest.clone()).is_ok());
        for bad in ["", "-a", "a-", "1a", "A", "a b", "a/b", "a_b", "\u{e9}", &long] {
            assert!(id("id", bad.into()).is_err(), "{bad}");
        }
        assert!(name("name", "Acme \u{e9}".into()).is_ok() && name("name", "a\n".into()).is_err());
    }
}
