//! Known answers that a manifest carries, with what their units read.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::input::InputRef;

/// Most bytes that the inputs of one golden may hold together, decoded: goldens travel inside the component.
pub const GOLDEN_INPUT_BYTES_MAX: usize = 64 << 10;

/// A known answer: run unit `unit` with these, find this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Stage name.
    pub stage: String,
    /// Arguments, defaults may be left out.
    pub args: serde_json::Value,
    /// Root seed.
    pub seed: String,
    /// Unit index.
    pub unit: u64,
    /// What the unit may read, by the names the stage declares; one that is not here is not there for the unit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<GoldenInput>,
    /// Digest of the unit's fragment.
    pub digest: Digest,
    /// Fuel burned.
    pub fuel: u64,
}

/// An input of a golden's unit, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenInput {
    /// The name the kernel opens it by.
    pub name: String,
    /// Its bytes in base64 (RFC 4648, standard alphabet, padded).
    pub content: String,
}

impl GoldenInput {
    /// An input of these bytes.
    #[must_use]
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { name: name.into(), content: encode(bytes) }
    }

    /// Its bytes; `None` where the content is not base64 in its one form.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        decode(&self.content)
    }
}

impl Golden {
    /// What its unit reads, in order: the reference that belongs into the task, and the bytes. Inputs whose content is
    /// not base64, which no parsed manifest has, are left out.
    #[must_use]
    pub fn reads(&self) -> Vec<(InputRef, Vec<u8>)> {
        let read = |input: &GoldenInput| {
            let bytes = input.bytes()?;
            let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
            Some((InputRef { name: input.name.clone(), digest, bytes: size }, bytes))
        };
        self.inputs.iter().filter_map(read).collect()
    }

    /// The first rule its inputs break.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let mut total = 0usize;
        for (index, input) in self.inputs.iter().enumerate() {
            if self.inputs.iter().take(index).any(|other| other.name == input.name) {
                return Some("the inputs of a golden have names of their own");
            }
            let Some(bytes) = input.bytes() else {
                return Some("the content of a golden's input is base64 (RFC 4648, standard alphabet, padded)");
            };
            total = total.saturating_add(bytes.len());
        }
        (total > GOLDEN_INPUT_BYTES_MAX).then_some("the inputs of a golden hold at most 64 KiB together")
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| three.get(at).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let six = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            let digit = ALPHABET.get(six).copied().unwrap_or(b'=');
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes of a text that [`encode`] writes, and of no other.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (fours, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(fours.len() * 3);
    for (index, four) in fours.iter().enumerate() {
        let digits = four.iter().position(|digit| *digit == b'=').unwrap_or(4);
        let padding_ends_the_text = digits == 4 || (digits >= 2 && index + 1 == fours.len());
        if !padding_ends_the_text || four.iter().skip(digits).any(|digit| *digit != b'=') {
            return None;
        }
        let mut bits = 0u32;
        for place in 0..4 {
            let digit = four.get(place).filter(|_| place < digits);
            let six = digit.map_or(Some(0), |digit| ALPHABET.iter().position(|known| known == digit))?;
            bits = bits << 6 | u32::try_from(six).ok()?;
        }
        let [_, a, b, c] = bits.to_be_bytes();
        let three = [a, b, c];
        let (kept, dropped) = three.split_at(digits - 1);
        if dropped.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_vectors_of_the_standard() {
        // RFC 4648, section 10.
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in vectors.iter().enumerate() {
            let bytes = &b"foobar"[..length];
            assert_eq!(encode(bytes), *text);
            assert_eq!(decode(text).unwrap(), bytes);
        }
        for wrong in ["Zg", "Zg=", "Zh==", "Zm9=", "====", "Z===", "Zg==Zg==", "Zm9v\n", "Zm-v"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn only_what_is_written_is_read(text in "[A-Za-d+/=]{0,16}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_golden_without_inputs_keeps_its_json() {
        let json = serde_json::json!({
            "stage": "s", "args": {}, "seed": "a", "unit": 0, "digest": Digest::of(b"x"), "fuel": 1
        });
        let mut golden: Golden = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&golden).unwrap(), json);
        golden.inputs = vec![GoldenInput::new("a", b"abc")];
        assert_eq!(golden.reads()[0].0, InputRef { name: "a".into(), digest: Digest::of(b"abc"), bytes: 3 });
        assert_eq!(golden.fault(), None);
        golden.inputs.push(GoldenInput { name: "a".into(), content: String::new() });
        assert!(golden.fault().unwrap().contains("names"));
        golden.inputs = vec![GoldenInput { name: "a".into(), content: "?".into() }];
        assert!(golden.fault().unwrap().contains("base64"));
        golden.inputs = vec![GoldenInput::new("a", &vec![0; GOLDEN_INPUT_BYTES_MAX + 1])];
        assert!(golden.fault().unwrap().contains("64 KiB"));
    }
}
