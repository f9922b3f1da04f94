//! The text of a key, and what is kept of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forge_contract::Digest;

use crate::store::tenancy::{NewKey, Scopes};

/// Every key starts with this, so that a leaked one is recognised.
pub const KEY_PREFIX: &str = "fpk_";
/// Characters of a key that are kept to recognise it by.
const HINT: usize = 8;

/// What is kept of a key: the BLAKE3 digest of its text.
#[must_use]
pub fn hash_of(key: &str) -> Digest {
    Digest::tagged("forgepool v1 api key", key.as_bytes())
}

/// A new key's text, 256 bits of chance.
#[must_use]
pub fn new_text() -> String {
    format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(crate::clock::random::<32>()))
}

/// A new id: this prefix and 80 bits of chance.
#[must_use]
pub fn new_id(prefix: &str) -> String {
    let bytes = crate::clock::random::<10>();
    bytes.iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What is kept of a key with this text, of no member and without an end.
#[must_use]
pub fn kept(text: &str, project: &str, scopes: Scopes) -> NewKey {
    NewKey {
        hash: hash_of(text),
        id: new_id("key_"),
        project: project.into(),
        name: String::new(),
        hint: text.chars().take(HINT).collect(),
        scopes,
        member: None,
        expires_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_does_not_give_the_key_away() {
        let (one, two) = (new_text(), new_text());
        assert!(one != two && one.starts_with(KEY_PREFIX) && one.len() == 47);
        let kept = kept(&one, "p", Scopes::all());
        assert!(one.starts_with(&kept.hint) && kept.hint.len() == HINT);
        assert_eq!((kept.hash, kept.id.len()), (hash_of(&one), 24));
    }
}
