//! JSON, strictly: no duplicate key, no number that JSON cannot carry exactly, bounded depth, every error with its place.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::field::{escape, name};
use crate::canon;
use crate::failure::{Failure, FailureCode};
use crate::limits::JSON_DEPTH_MAX;

/// Integers beyond this many are not exact in JSON (RFC 7493, section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Reads one JSON text.
///
/// # Errors
/// `request.malformed` for what is no JSON, for a key that stands twice and for what is nested too deeply; `request.schema`,
/// in `args` `request.arguments`, for an integer that a double would round. Each with a pointer where there is a place.
pub fn read(body: &[u8]) -> Result<Value, Failure> {
    let trail = Trail::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Strict { trail: &trail, depth: 0 }.deserialize(&mut reader).and_then(|value| {
        trail.clear();
        reader.end().map(|()| value)
    });
    value.map_err(|error| trail.failure(body, &error))
}

/// Where the reading is, and what rule was broken there.
#[derive(Default)]
struct Trail {
    steps: RefCell<Vec<String>>,
    broken: RefCell<Option<(FailureCode, String)>>,
}

impl Trail {
    fn push(&self, step: &str) {
        self.steps.borrow_mut().push(escape(step));
    }

    fn pop(&self) {
        self.steps.borrow_mut().pop();
    }

    fn clear(&self) {
        self.steps.borrow_mut().clear();
    }

    fn pointer(&self) -> String {
        self.steps.borrow().iter().fold(String::new(), |path, step| path + "/" + step)
    }

    /// Notes the rule; the error that carries it out of the parser is a stand-in.
    fn refuse<E: serde::de::Error>(&self, code: FailureCode, rule: String) -> E {
        *self.broken.borrow_mut() = Some((code, rule));
        E::custom("refused")
    }

    fn failure(&self, body: &[u8], error: &serde_json::Error) -> Failure {
        let pointer = self.pointer();
        if let Some((code, rule)) = self.broken.take() {
            return Failure::new(code, format!("{}: {rule}", name(&pointer))).at(pointer);
        }
        let rest = rest_of(body, error);
        let nonfinite =
            ["NaN", "Infinity", "-Infinity", "nan", "inf"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        let text = error.to_string();
        let place = format!("line {}, column {}", error.line(), error.column());
        let detail = if text.starts_with("number out of range") {
            format!("{}: the number at {place} is beyond the range of a double", name(&pointer))
        } else if let Some(word) = nonfinite {
            format!("{}: {word} at {place} is no JSON number; every number must be finite", name(&pointer))
        } else if error.is_eof() {
            format!("the body ends at {place} in the middle of a value")
        } else {
            let reason = text.split(" at line ").next().unwrap_or("not JSON").to_owned();
            format!("the body is not JSON at {place}: {reason}")
        };
        let failure = Failure::new(FailureCode::RequestMalformed, detail);
        if pointer.is_empty() { failure } else { failure.at(pointer) }
    }
}

/// The body from the error's place on. A column counts bytes and starts at 1, so it stands just past the culprit's first byte.
fn rest_of<'a>(body: &'a [u8], error: &serde_json::Error) -> &'a [u8] {
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let from = error.column().saturating_sub(1).min(line.len());
    let rest = line.get(from..).unwrap_or_default();
    // `-Infinity` and `NaN` fail on their second letter.
    let before = line.get(from.saturating_sub(1)..).unwrap_or_default();
    if before.starts_with(b"-I") || before.starts_with(b"Na") || before.starts_with(b"na") { before } else { rest }
}

struct Strict<'t> {
    trail: &'t Trail,
    depth: usize,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > JSON_DEPTH_MAX {
            let rule = format!("nested more than {JSON_DEPTH_MAX} levels deep");
            return Err(self.trail.refuse(FailureCode::RequestMalformed, rule));
        }
        Ok(Strict { trail: self.trail, depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            #[expect(clippy::cast_precision_loss, reason = "what is lost shows in the text")]
            return self.large(value as f64, &value.to_string());
        }
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > INTEGER_MAX {
            #[expect(clippy::cast_precision_loss, reason = "what is lost shows in the text")]
            return self.large(value as f64, &value.to_string());
        }
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.trail.push(&values.len().to_string());
            let Some(value) = items.next_element_seed(self.deeper()?)? else { break };
            self.trail.pop();
            values.push(value);
        }
        self.trail.pop();
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            self.trail.push(&key);
            if map.contains_key(&key) {
                let rule = "this key stands twice; which one counts would be a guess, so give it once".to_owned();
                return Err(self.trail.refuse(FailureCode::RequestMalformed, rule));
            }
            let value = fields.next_value_seed(self.deeper()?)?;
            self.trail.pop();
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

impl Strict<'_> {
    /// A number beyond the exact integers: the double it spells, where it is spelt as canonical JSON spells that double
    /// (1e18 is 1000000000000000000 there). Another spelling means an integer that would be rounded.
    fn large<E: serde::de::Error>(&self, value: f64, text: &str) -> Result<Value, E> {
        if canon::json(&value).is_ok_and(|spelt| spelt == text)
            && let Some(number) = Number::from_f64(value)
        {
            return Ok(Value::Number(number));
        }
        Err(self.trail.refuse(self.number_code(), inexact(&text)))
    }

    /// Whose rule a number breaks: an argument's or the envelope's.
    fn number_code(&self) -> FailureCode {
        let steps = self.trail.steps.borrow();
        if steps.first().is_some_and(|step| step == "args") {
            FailureCode::RequestArguments
        } else {
            FailureCode::RequestSchema
        }
    }
}

fn inexact(value: &dyn fmt::Display) -> String {
    format!("integers are exact from -{INTEGER_MAX} to {INTEGER_MAX} only, found {value}")
}
