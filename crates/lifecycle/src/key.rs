//! Keys and signatures as texts with one spelling each. Nothing here knows a curve: whoever checks a signature is given.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ed25519 public key. As text: base64url without padding, 43 characters, as agents pin a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

/// An Ed25519 signature. As text: base64url without padding, 86 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// A text that is no key or signature, or not in its one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} characters of base64url without padding")]
pub struct KeyError {
    /// Characters of the right form.
    pub expected: usize,
}

fn read<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let expected = (N * 4).div_ceil(3);
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError { expected })?;
    bytes.try_into().map_err(|_| KeyError { expected })
}

macro_rules! texts {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                read(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

texts!(Key);
texts!(Signature);

/// Says whether a signature is a key's over a message.
pub type Verify<'a> = &'a dyn Fn(&Key, &[u8], &Signature) -> bool;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_have_one_spelling() {
        let key = Key([7; 32]);
        assert_eq!(key.to_string().len(), 43);
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        let signature = Signature([9; 64]);
        assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
        // The last character holds two bits that no byte has: set, they are another spelling.
        let other = key.to_string().trim_end_matches('c').to_owned() + "d";
        assert_eq!(other.parse::<Key>(), Err(KeyError { expected: 43 }));
        assert_eq!("".parse::<Signature>(), Err(KeyError { expected: 86 }));
    }
}
