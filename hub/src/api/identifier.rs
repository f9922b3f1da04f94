//! What ids and names look like.

use forge_contract::FailureCode;

use super::problem::Problem;

/// Longest id of an organisation or project, bytes.
const ID_BYTES_MAX: usize = 40;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 128;

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
    let good = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if good { Ok(text) } else { Err(wrong(field, "1 to 128 bytes of text without control characters", &text)) }
}

/// How many items of a list, 1 to 1000.
///
/// # Errors
/// `request.schema`.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    super::jobs::limit(asked, 200)
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
        for bad in ["", "-a", "a-", "1a", "A", "a b", "a/b", "a_b", "\u{e9}", &long] {
            assert!(id("id", bad.into()).is_err(), "{bad}");
        }
        assert!(name("name", "Acme \u{e9}".into()).is_ok() && name("name", "a\n".into()).is_err());
    }
}
