//! Conditions of a request on what is there: `If-Match` and `If-None-Match` (RFC 9110, section 13.1).

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};

/// Most tags of a list.
const TAGS_MAX: usize = 64;
/// What a condition is, as a regular expression: `*`, or entity tags.
pub const PATTERN: &str = r#"^(\*|(W/)?"[ !#-~]*"( *, *(W/)?"[ !#-~]*"){0,63})$"#;

/// Why a condition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It is neither `*` nor a list of entity tags.
    #[error("the header {header}: expected * or entity tags in double quotes, found '{found}'")]
    Unread {
        /// Which header.
        header: &'static str,
        /// The part that is none.
        found: String,
    },
    /// There are too many tags.
    #[error("the header {header}: expected at most {TAGS_MAX} entity tags")]
    Many {
        /// Which header.
        header: &'static str,
    },
}

/// Tags of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these: weak or not, and the text between the quotes.
    Of(Vec<(bool, String)>),
}

/// What must be there, and what must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    expected: Option<Tags>,
    unwanted: Option<Tags>,
}

impl Condition {
    /// The condition of a request; without the headers it always holds.
    ///
    /// # Errors
    /// See [`ConditionError`].
    pub fn of(headers: &HeaderMap) -> Result<Self, ConditionError> {
        Ok(Self {
            expected: tags(headers, &IF_MATCH, "If-Match")?,
            unwanted: tags(headers, &IF_NONE_MATCH, "If-None-Match")?,
        })
    }

    /// Whether `If-Match` holds for what is there: the text of its strong tag, or nothing.
    #[must_use]
    pub fn expects(&self, current: Option<&str>) -> bool {
        match (&self.expected, current) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Tags::Any), Some(_)) => true,
            // Strong comparison: a weak tag is never the one meant.
            (Some(Tags::Of(tags)), Some(current)) => tags.iter().any(|(weak, tag)| !weak && tag == current),
        }
    }

    /// Whether `If-None-Match` holds for what is there.
    #[must_use]
    pub fn misses(&self, current: Option<&str>) -> bool {
        match (&self.unwanted, current) {
            (None, _) | (Some(_), None) => true,
            (Some(Tags::Any), Some(_)) => false,
            (Some(Tags::Of(tags)), Some(current)) => tags.iter().all(|(_, tag)| tag != current),
        }
    }

    /// Whether a change may be made.
    #[must_use]
    pub fn holds(&self, current: Option<&str>) -> bool {
        self.expects(current) && self.misses(current)
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName, header: &'static str) -> Result<Option<Tags>, ConditionError> {
    let mut found: Option<Vec<(bool, String)>> = None;
    for value in headers.get_all(name) {
        let unread = |found: &str| ConditionError::Unread {
            header,
            found: found.chars().take(80).flat_map(char::escape_default).collect(),
        };
        let text = value.to_str().map_err(|_| unread("(not text)"))?.trim();
        if text == "*" {
            return Ok(Some(Tags::Any));
        }
        let list = found.get_or_insert_default();
        let mut rest = text;
        while !rest.is_empty() {
            let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let (tag, after) =
                quoted.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(|| unread(rest))?;
            list.push((weak, tag.to_owned()));
            if list.len() > TAGS_MAX {
                return Err(ConditionError::Many { header });
            }
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(unread(after)),
            };
        }
        if list.is_empty() {
            return Err(unread(text));
        }
    }
    Ok(found.map(Tags::Of))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Result<Condition, ConditionError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Condition::of(&headers)
    }

    #[test]
    fn conditions_are_those_of_the_standard() {
        let holds = |pairs: &[(&'static str, &str)], current| of(pairs).unwrap().holds(current);
        assert!(holds(&[], None) && holds(&[], Some("1")));
        for (value, none, one, two) in [
            ("*", false, true, true),
            ("\"1\"", false, true, false),
            ("\"1\", \"2\"", false, true, true),
            ("\"1\" ,\"3\"", false, true, false),
            ("W/\"1\"", false, false, false),
        ] {
            let found = [None, Some("1"), Some("2")].map(|current| holds(&[("if-match", value)], current));
            assert_eq!(found, [none, one, two], "If-Match: {value}");
        }
        for (value, none, one, two) in
            [("*", true, false, false), ("\"1\"", true, false, true), ("W/\"1\", \"3\"", true, false, true)]
        {
            let found = [None, Some("1"), Some("2")].map(|current| holds(&[("if-none-match", value)], current));
            assert_eq!(found, [none, one, two], "If-None-Match: {value}");
        }
        let both = [("if-match", "\"1\""), ("if-match", "\"2\""), ("if-none-match", "\"2\"")];
        assert_eq!([Some("1"), Some("2"), None].map(|current| holds(&both, current)), [true, false, false]);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for bad in ["1", "\"1", "\"1\" \"2\"", "", "W/1", ",", "*, \"1\""] {
            assert!(matches!(of(&[("if-match", bad)]), Err(ConditionError::Unread { .. })), "{bad}");
        }
        let many = vec!["\"1\""; 65].join(",");
        assert_eq!(of(&[("if-none-match", &many)]), Err(ConditionError::Many { header: "If-None-Match" }));
    }

    /// Every list of up to three tags against every current tag: the definition, written out.
    #[test]
    fn lists_agree_with_the_definition() {
        let tags = ["\"a\"", "\"b\"", "W/\"a\"", "W/\"b\""];
        for number in 0..4_usize.pow(3) {
            let chosen = [number % 4, number / 4 % 4, number / 16].map(|at| tags[at]);
            let value = chosen.join(", ");
            for current in ["a", "b", "c"] {
                let strong = chosen.contains(&format!("\"{current}\"").as_str());
                let weak = chosen.iter().any(|tag| tag.trim_start_matches("W/") == format!("\"{current}\""));
                assert_eq!(of(&[("if-match", &value)]).unwrap().expects(Some(current)), strong, "{value} {current}");
                assert_eq!(of(&[("if-none-match", &value)]).unwrap().misses(Some(current)), !weak, "{value} {current}");
            }
        }
    }
}
