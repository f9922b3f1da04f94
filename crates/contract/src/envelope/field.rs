//! Reading fields by name, each mistake answered with the place, the rule, what was found and a fix.

use serde_json::{Map, Value};

use super::LABEL_CHARS_MAX;
use crate::capability::{LABELS_MAX, WORD_BYTES_MAX, word_is_valid};
use crate::failure::{Failure, FailureCode};

/// One of a closed set of spellings.
pub trait Choice: Copy + 'static {
    /// Every choice in order.
    const ALL: &'static [Self];
    /// What an absent field means.
    const DEFAULT: Self;
    /// The spelling.
    fn as_str(self) -> &'static str;
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident: default $default:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$item])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every choice in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The spelling in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::envelope::field::Choice for $name {
            const ALL: &'static [Self] = $name::ALL;
            const DEFAULT: Self = Self::$default;
            fn as_str(self) -> &'static str {
                $name::as_str(self)
            }
        }
    };
}
pub(crate) use choice;

/// A JSON object with its place in the request.
pub struct Object<'a> {
    map: &'a Map<String, Value>,
    at: String,
}

impl<'a> Object<'a> {
    /// The object at `pointer`.
    pub fn new(value: &'a Value, pointer: &str) -> Result<Self, Failure> {
        match value {
            Value::Object(map) => Ok(Self { map, at: pointer.to_owned() }),
            other => {
                let detail = format!("{}: expected an object, found {}", name(pointer), found(other));
                Err(Failure::new(FailureCode::RequestSchema, detail).at(pointer))
            }
        }
    }

    /// The fields.
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// The pointer of a field.
    pub fn pointer(&self, field: &str) -> String {
        format!("{}/{}", self.at, escape(field))
    }

    fn wrong(&self, field: &str, expected: &str, value: &Value) -> Failure {
        let pointer = self.pointer(field);
        let detail = format!("{}: expected {expected}, found {}", name(&pointer), found(value));
        Failure::new(FailureCode::RequestSchema, detail).at(pointer)
    }

    fn missing(&self, field: &str, expected: &str) -> Failure {
        let pointer = self.pointer(field);
        let detail = format!("{}: required and missing; expected {expected}", name(&pointer));
        Failure::new(FailureCode::RequestSchema, detail).at(pointer)
    }

    /// Refuses every field but these.
    pub fn only(&self, known: &[&str]) -> Result<(), Failure> {
        let Some(unknown) = self.map.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let pointer = self.pointer(unknown);
        let fix = suggestion(unknown, known);
        let detail = format!("{}: no such field; expected one of {}{fix}", name(&pointer), known.join(", "));
        Err(Failure::new(FailureCode::RequestSchema, detail).at(pointer))
    }

    /// A required object.
    pub fn object(&self, field: &str) -> Result<Object<'a>, Failure> {
        self.optional(field)?.ok_or_else(|| self.missing(field, "an object"))
    }

    /// An object that may be absent.
    pub fn optional(&self, field: &str) -> Result<Option<Object<'a>>, Failure> {
        self.map.get(field).map(|value| Object::new(value, &self.pointer(field))).transpose()
    }

    /// Text of at most `chars_max` characters that may be absent.
    pub fn text(&self, field: &str, chars_max: usize) -> Result<Option<String>, Failure> {
        match self.map.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= chars_max => Ok(Some(text.clone())),
            Some(Value::String(text)) => {
                let (pointer, found) = (self.pointer(field), text.chars().count());
                let detail = format!("{}: expected at most {chars_max} characters, found {found}", name(&pointer));
                Err(Failure::new(FailureCode::RequestSchema, detail).at(pointer))
            }
            Some(other) => Err(self.wrong(field, "text", other)),
        }
    }

    /// Text that must be there and not empty.
    pub fn required_text(&self, field: &str, chars_max: usize) -> Result<String, Failure> {
        let expected = format!("text of 1 to {chars_max} characters");
        match self.text(field, chars_max)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(text) => Err(self.wrong(field, &expected, &Value::String(text))),
            None => Err(self.missing(field, &expected)),
        }
    }

    /// A client's own label: short printable text; the empty one counts as absent.
    pub fn label(&self, field: &str) -> Result<Option<String>, Failure> {
        let label = self.text(field, LABEL_CHARS_MAX)?.filter(|text| !text.is_empty());
        match label {
            Some(text) if text.chars().any(char::is_control) => {
                Err(self.wrong(field, "text without control characters", &Value::String(text)))
            }
            label => Ok(label),
        }
    }

    /// A word fit for a path: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    pub fn word(&self, field: &str) -> Result<Option<String>, Failure> {
        let Some(text) = self.text(field, LABEL_CHARS_MAX)? else { return Ok(None) };
        if crate::key::word(&text).is_ok() {
            return Ok(Some(text));
        }
        Err(self.wrong(
            field,
            "a word of 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first",
            &Value::String(text),
        ))
    }

    /// A list of agents' labels, `region=eu`.
    pub fn labels(&self, field: &str) -> Result<Option<Vec<String>>, Failure> {
        let Some(value) = self.map.get(field) else { return Ok(None) };
        let expected = format!("a list of at most {LABELS_MAX} labels");
        let items = value.as_array().filter(|items| items.len() <= LABELS_MAX);
        let items = items.ok_or_else(|| self.wrong(field, &expected, value))?;
        let label = |(index, item): (usize, &Value)| {
            let text = item.as_str().filter(|text| word_is_valid(text)).map(str::to_owned);
            text.ok_or_else(|| {
                let pointer = format!("{}/{index}", self.pointer(field));
                let rule = format!("1 to {WORD_BYTES_MAX} printable ASCII bytes");
                let detail = format!("{}: expected a label of {rule}, found {}", name(&pointer), found(item));
                Failure::new(FailureCode::RequestSchema, detail).at(pointer)
            })
        };
        items.iter().enumerate().map(label).collect::<Result<_, _>>().map(Some)
    }

    /// An integer within `min ..= max` that may be absent.
    pub fn integer(&self, field: &str, min: u64, max: u64) -> Result<Option<u64>, Failure> {
        let Some(value) = self.map.get(field) else { return Ok(None) };
        let exact = match value {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            _ => None,
        };
        match exact {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(field, &format!("an integer from {min} to {max}"), value)),
        }
    }

    /// An integer within `min ..= max`.
    pub fn required_integer(&self, field: &str, min: u64, max: u64) -> Result<u64, Failure> {
        self.integer(field, min, max)?.ok_or_else(|| self.missing(field, &format!("an integer from {min} to {max}")))
    }

    /// True or false.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, Failure> {
        match self.map.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(field, "true or false", other)),
        }
    }

    /// One of a closed set; absent means the default.
    pub fn choice<C: Choice>(&self, field: &str) -> Result<C, Failure> {
        self.map.get(field).map_or(Ok(C::DEFAULT), |value| self.chosen(field, value))
    }

    /// One of a closed set.
    pub fn required_choice<C: Choice>(&self, field: &str) -> Result<C, Failure> {
        match self.map.get(field) {
            Some(value) => self.chosen(field, value),
            None => Err(self.missing(field, &format!("one of {}", spellings::<C>().join(", ")))),
        }
    }

    fn chosen<C: Choice>(&self, field: &str, value: &Value) -> Result<C, Failure> {
        let text = value.as_str();
        if let Some(choice) = C::ALL.iter().find(|choice| Some(choice.as_str()) == text) {
            return Ok(*choice);
        }
        let known = spellings::<C>();
        let mut failure = self.wrong(field, &format!("one of {}", known.join(", ")), value);
        failure.detail.push_str(&text.map(|text| suggestion(text, &known)).unwrap_or_default());
        Err(failure)
    }

    /// A list of choices, each at most once in effect.
    pub fn choices<C: Choice>(&self, field: &str) -> Result<Option<Vec<C>>, Failure> {
        match self.map.get(field) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    self.chosen(field, item).map_err(|f| {
                        let pointer = format!("{}/{index}", self.pointer(field));
                        f.at(pointer)
                    })
                });
                items.collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(self.wrong(field, &format!("a list of {}", spellings::<C>().join(", ")), other)),
        }
    }
}

/// A whole number written with a fraction or exponent (`1e6`, `2.0`).
fn whole(number: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 2^53")]
    ((0.0..EXACT).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

fn spellings<C: Choice>() -> Vec<&'static str> {
    C::ALL.iter().map(|choice| choice.as_str()).collect()
}

/// A pointer as people write it: `/policy/verify` is `policy.verify`.
#[must_use]
pub fn name(pointer: &str) -> String {
    match pointer.strip_prefix('/') {
        Some(path) => {
            path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>().join(".")
        }
        None => "the body".into(),
    }
}

/// A step of a JSON pointer (RFC 6901, section 3).
#[must_use]
pub fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// What was found, cut short.
#[must_use]
pub fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            let short: String = text.chars().take(40).collect();
            let cut = if short.len() < text.len() { "..." } else { "" };
            format!("{:?}", format!("{short}{cut}"))
        }
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
    }
}

/// The end of a sentence, `; did you mean "full"?`, where one known spelling is near; else nothing.
#[must_use]
pub fn suggestion(text: &str, known: &[&str]) -> String {
    let plain: String = text.trim().to_lowercase().chars().take(64).collect();
    let near = known.iter().map(|word| (distance(&plain, word), *word)).min();
    match near {
        Some((edits, word)) if edits <= 2 && edits < word.chars().count() => format!("; did you mean \"{word}\"?"),
        _ => String::new(),
    }
}

/// Edits between two short words (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            *cell = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
