//! Names that clients choose for what they store: namespaces, keys, arrays. What a path could misread is refused.

/// Longest namespace or array name, bytes.
pub const WORD_BYTES_MAX: usize = 64;
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// What [`word`] allows, as a regular expression.
pub const WORD_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
/// What [`key`] allows, but for its length.
pub const KEY_PATTERN: &str = concat!(
    r"^(\.{0,2}[A-Za-z0-9_~:@=+,-][A-Za-z0-9._~:@=+,-]*|\.{3}[A-Za-z0-9._~:@=+,-]*)",
    r"(/(\.{0,2}[A-Za-z0-9_~:@=+,-][A-Za-z0-9._~:@=+,-]*|\.{3}[A-Za-z0-9._~:@=+,-]*))*$"
);
/// What [`prefix`] allows, but for its length.
pub const PREFIX_PATTERN: &str = "^[A-Za-z0-9._~:@=+,/-]*$";

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is empty or too long.
    #[error("expected 1 to {max} bytes, found {found}")]
    Length {
        /// Most bytes.
        max: usize,
        /// Bytes found.
        found: usize,
    },
    /// A character that is not allowed.
    #[error("expected letters, digits and {allowed}, found another character at byte {at}")]
    Character {
        /// What is allowed beside letters and digits.
        allowed: &'static str,
        /// Byte offset of the first other one.
        at: usize,
    },
    /// A word that does not begin with a letter or digit.
    #[error("expected a letter or digit first")]
    First,
    /// Two slashes in a row, or one at an end: an empty step of a path.
    #[error("expected steps between slashes, none of them empty, found an empty one at byte {at}")]
    Empty {
        /// Where the step would be.
        at: usize,
    },
    /// A step `.` or `..`.
    #[error("expected steps other than '.' and '..', found one at byte {at}")]
    Dots {
        /// Where it begins.
        at: usize,
    },
}

/// Whether text is a word fit to be one step of a path: a namespace of keys, or the name of an array.
///
/// # Errors
/// The first rule it breaks: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
pub fn word(text: &str) -> Result<(), KeyError> {
    length(text, WORD_BYTES_MAX)?;
    characters(text, b"._-", "'.', '_', '-'")?;
    if text.starts_with(|first: char| first.is_ascii_alphanumeric()) { Ok(()) } else { Err(KeyError::First) }
}

/// Whether text is a key: steps between slashes, none of them empty, `.` or `..`.
///
/// # Errors
/// The first rule it breaks. A percent sign is never allowed, so that nothing decodes twice to another key.
pub fn key(text: &str) -> Result<(), KeyError> {
    length(text, KEY_BYTES_MAX)?;
    characters(text, b"._-~:@=+,/", "'.', '_', '-', '~', ':', '@', '=', '+', ',', '/'")?;
    let mut at = 0;
    for step in text.split('/') {
        match step {
            "" => return Err(KeyError::Empty { at }),
            "." | ".." => return Err(KeyError::Dots { at }),
            _ => at += step.len() + 1,
        }
    }
    Ok(())
}

/// Whether text can begin a key: what a list by prefix is asked for. The empty one begins all.
///
/// # Errors
/// `Length`, `Character`.
pub fn prefix(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Ok(());
    }
    length(text, KEY_BYTES_MAX)?;
    characters(text, b"._-~:@=+,/", "'.', '_', '-', '~', ':', '@', '=', '+', ',', '/'")
}

fn length(text: &str, max: usize) -> Result<(), KeyError> {
    if (1..=max).contains(&text.len()) { Ok(()) } else { Err(KeyError::Length { max, found: text.len() }) }
}

fn characters(text: &str, also: &[u8], allowed: &'static str) -> Result<(), KeyError> {
    match text.bytes().position(|byte| !byte.is_ascii_alphanumeric() && !also.contains(&byte)) {
        Some(at) => Err(KeyError::Character { allowed, at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_paths_without_tricks() {
        for good in ["a", "a/b", "01J/result_json", "x.y/..z/.hidden", "k=v,w", "a..b", "~u@h:1+2"] {
            assert_eq!(key(good), Ok(()), "{good}");
        }
        let long = "k".repeat(513);
        for (bad, why) in [
            ("", KeyError::Length { max: 512, found: 0 }),
            (long.as_str(), KeyError::Length { max: 512, found: 513 }),
            ("..", KeyError::Dots { at: 0 }),
            ("a/../b", KeyError::Dots { at: 2 }),
            ("a/.", KeyError::Dots { at: 2 }),
            ("/a", KeyError::Empty { at: 0 }),
            ("a//b", KeyError::Empty { at: 2 }),
            ("a/", KeyError::Empty { at: 2 }),
        ] {
            assert_eq!(key(bad), Err(why), "{bad}");
        }
        for bad in ["a%2e", "a\0b", "a b", "a\\b", "ä", "a?b", "a#b", "a\n"] {
            assert!(matches!(key(bad), Err(KeyError::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn words_are_one_step() {
        for good in ["a", "jobs", "9.x_y-z", &"w".repeat(64)] {
            assert_eq!(word(good), Ok(()), "{good}");
        }
        assert_eq!(word(".a"), Err(KeyError::First));
        assert_eq!(word(".."), Err(KeyError::First));
        assert!(matches!(word("a/b"), Err(KeyError::Character { at: 1, .. })));
        assert!(matches!(word(&"w".repeat(65)), Err(KeyError::Length { found: 65, .. })));
    }

    proptest! {
        /// Whatever is allowed survives a file system's and a URL's reading of it.
        #[test]
        fn what_is_allowed_is_its_own_normal_form(text in "[a-z./%~ ]{0,12}") {
            if key(&text).is_ok() {
                let steps: Vec<&str> = text.split('/').collect();
                prop_assert!(steps.iter().all(|step| !step.is_empty() && *step != "." && *step != ".."));
                prop_assert!(!text.contains(['%', ' ', '\\']));
                let path = std::path::Path::new(&text);
                prop_assert!(path.components().all(|step| matches!(step, std::path::Component::Normal(_))));
                prop_assert!((0..=text.len()).all(|end| prefix(&text[..end]).is_ok()));
            }
        }

        #[test]
        fn patterns_say_the_same(text in "[a-zZ0._/~%\n-]{0,6}", long in 60usize..70) {
            let fits = |pattern: &str, text: &str| jsonschema::is_valid(&serde_json::json!({ "pattern": pattern }), &text.into());
            prop_assert_eq!(fits(WORD_PATTERN, &text), word(&text).is_ok());
            prop_assert_eq!(fits(KEY_PATTERN, &text), key(&text).is_ok());
            prop_assert_eq!(fits(PREFIX_PATTERN, &text), prefix(&text).is_ok());
            let text = "w".repeat(long);
            prop_assert_eq!(fits(WORD_PATTERN, &text), word(&text).is_ok());
        }
    }
}
