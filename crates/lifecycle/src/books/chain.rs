//! The chain: each transaction is bound to all before it, and the newest link signed by the hub.
//!
//! A link is made of digests alone. Whoever may see only some transactions gets the digests of the others and checks the
//! whole chain all the same: nothing was taken out, put in, changed or moved since the head was signed.

use forge_contract::Digest;
use forge_contract::canon::Writer;
use serde::{Deserialize, Serialize};

use super::{BooksError, Transaction};
use crate::Millis;
use crate::key::{Key, Signature, Verify};

/// The link before the first.
pub const ROOT: Digest = Digest::from_bytes([0; 32]);

/// A transaction's place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// Its digest.
    pub digest: Digest,
    /// The transaction, where the reader may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<Transaction>,
}

/// The newest link, in the hub's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The number of its transaction; 0 where there is none yet.
    pub seq: u64,
    /// The link.
    pub link: Digest,
    /// When this was signed, ms since 1970.
    pub at_ms: Millis,
    /// Who signed.
    pub public_key: Key,
    /// The signature of [`Head::root_of`].
    pub signature: Signature,
}

/// The link of a transaction.
#[must_use]
pub fn link(previous: &Digest, seq: u64, digest: &Digest) -> Digest {
    let mut w = Writer::with_capacity(80);
    w.digest(previous);
    w.u64(seq);
    w.digest(digest);
    Digest::tagged("forgepool v1 books link", &w.into_bytes())
}

impl Head {
    /// What is signed.
    #[must_use]
    pub fn root_of(seq: u64, link: &Digest, at_ms: Millis) -> Digest {
        let mut w = Writer::with_capacity(56);
        w.u64(seq);
        w.digest(link);
        w.u64(at_ms);
        Digest::tagged("forgepool v1 books head", &w.into_bytes())
    }

    /// A head, signed by the holder of `key`.
    #[must_use]
    pub fn seal(seq: u64, link: Digest, at_ms: Millis, key: Key, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        let signature = Signature(sign(Self::root_of(seq, &link, at_ms).as_bytes()));
        Self { seq, link, at_ms, public_key: key, signature }
    }

    /// Whether the signature is the stated key's.
    #[must_use]
    pub fn is_signed(&self, verify: Verify<'_>) -> bool {
        let root = Self::root_of(self.seq, &self.link, self.at_ms);
        verify(&self.public_key, root.as_bytes(), &self.signature)
    }
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A line is missing, twice, or out of order.
    #[error("line {found} stands where line {expected} belongs")]
    Order {
        /// The number that belongs here.
        expected: u64,
        /// The number that stands here.
        found: u64,
    },
    /// A transaction is not the one its line was made of.
    #[error("line {seq}: the transaction has the digest {found}, the chain {expected}")]
    Changed {
        /// Which line.
        seq: u64,
        /// The digest in the chain.
        expected: Digest,
        /// The transaction's.
        found: Digest,
    },
    /// A transaction breaks the rules of double entry.
    #[error("line {seq}: {error}")]
    Broken {
        /// Which line.
        seq: u64,
        /// What is wrong.
        error: BooksError,
    },
    /// The lines end elsewhere than the head says.
    #[error("the lines end with number {found}, the head says {expected}")]
    Ends {
        /// The head's number.
        expected: u64,
        /// The last line's.
        found: u64,
    },
    /// The links lead elsewhere than the head says: some line was changed.
    #[error("the links lead to {found}, the head says {expected}: a line was changed, taken out or put in")]
    Link {
        /// The head's link.
        expected: Digest,
        /// What the lines give.
        found: Digest,
    },
    /// The head's signature is not the key's.
    #[error("the head was changed: the signature is not {key}'s over it")]
    Signature {
        /// The key it names.
        key: Key,
    },
}

/// Follows a chain line by line, keeping nothing but the last link.
#[derive(Clone, Debug)]
pub struct Walk {
    seq: u64,
    link: Digest,
    /// Transactions seen whole.
    pub seen: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { seq: 0, link: ROOT, seen: 0 }
    }
}

impl Walk {
    /// Takes the next line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn step(&mut self, line: &Line) -> Result<(), ChainError> {
        let expected = self.seq + 1;
        if line.seq != expected {
            return Err(ChainError::Order { expected, found: line.seq });
        }
        if let Some(transaction) = &line.transaction {
            let found = transaction.digest();
            if found != line.digest {
                return Err(ChainError::Changed { seq: line.seq, expected: line.digest, found });
            }
            transaction.check().map_err(|error| ChainError::Broken { seq: line.seq, error })?;
            self.seen += 1;
        }
        self.link = link(&self.link, line.seq, &line.digest);
        self.seq = line.seq;
        Ok(())
    }

    /// Compares with the head, after the last line.
    ///
    /// # Errors
    /// Where they differ, or the head is not signed.
    pub fn end(&self, head: &Head, verify: Verify<'_>) -> Result<(), ChainError> {
        if !head.is_signed(verify) {
            return Err(ChainError::Signature { key: head.public_key });
        }
        if head.seq != self.seq {
            return Err(ChainError::Ends { expected: head.seq, found: self.seq });
        }
        if head.link != self.link {
            return Err(ChainError::Link { expected: head.link, found: self.link });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::books::Stamp;

    fn sign(key: u8, message: &[u8]) -> [u8; 64] {
        let mut signature = [key; 64];
        signature[..32].copy_from_slice(Digest::of(message).as_bytes());
        signature
    }

    fn verify(key: &Key, message: &[u8], signature: &Signature) -> bool {
        signature.0 == sign(key.0[0], message)
    }

    /// A chain of which every other transaction is left out.
    fn chain(lines: u64) -> (Vec<Line>, Head) {
        let (mut all, mut last) = (Vec::new(), ROOT);
        for seq in 1..=lines {
            let stamp = Stamp { at_ms: seq, salt: u128::from(seq) };
            let transaction = Transaction::grant(stamp, "a", seq, "r").unwrap();
            let digest = transaction.digest();
            last = link(&last, seq, &digest);
            all.push(Line { seq, digest, transaction: (seq % 2 == 1).then_some(transaction) });
        }
        (all, Head::seal(lines, last, 9, Key([7; 32]), |message| sign(7, message)))
    }

    fn walk(lines: &[Line], head: &Head) -> Result<u64, ChainError> {
        let mut walk = Walk::default();
        lines.iter().try_for_each(|line| walk.step(line))?;
        walk.end(head, &verify).map(|()| walk.seen)
    }

    #[test]
    fn a_whole_chain_holds_and_nothing_can_be_done_to_it() {
        let (lines, head) = chain(7);
        assert_eq!(walk(&lines, &head), Ok(4));
        assert_eq!(walk(&[], &chain(0).1), Ok(0));
        for at in 0..lines.len() {
            let mut dropped = lines.clone();
            dropped.remove(at);
            assert!(walk(&dropped, &head).is_err(), "dropped {at}");
            // With the numbers closed up again, too.
            dropped.iter_mut().zip(1..).for_each(|(line, seq)| line.seq = seq);
            assert!(walk(&dropped, &head).is_err(), "dropped {at} and numbered again");
            let mut flipped = lines.clone();
            let mut bytes = *flipped[at].digest.as_bytes();
            bytes[3] ^= 1;
            flipped[at].digest = Digest::from_bytes(bytes);
            assert!(walk(&flipped, &head).is_err(), "flipped {at}");
            if let Some(transaction) = &mut flipped[at].transaction {
                transaction.postings[0].micro -= 1;
                transaction.postings[1].micro += 1;
                // The digest made to fit: the link does not.
                flipped[at].digest = flipped[at].transaction.as_ref().unwrap().digest();
                assert!(matches!(walk(&flipped, &head), Err(ChainError::Link { .. })), "changed {at}");
            }
            if at > 0 {
                let mut swapped = lines.clone();
                swapped.swap(at - 1, at);
                assert!(walk(&swapped, &head).is_err(), "swapped {at}");
                swapped.iter_mut().zip(1..).for_each(|(line, seq)| line.seq = seq);
                assert!(walk(&swapped, &head).is_err(), "swapped {at} and numbered again");
            }
        }
        let longer = chain(8).0;
        assert_eq!(walk(&longer, &head), Err(ChainError::Ends { expected: 7, found: 8 }));
        for spoil in [
            (|head: &mut Head| head.at_ms += 1) as fn(&mut Head),
            |head| head.seq -= 1,
            |head| head.public_key = Key([8; 32]),
        ] {
            let mut spoilt = head.clone();
            spoil(&mut spoilt);
            assert!(matches!(walk(&lines, &spoilt), Err(ChainError::Signature { .. })));
        }
        // A transaction of another shape is found even where digest and link were made to fit.
        let mut lopsided = lines[0].clone();
        if let Some(transaction) = &mut lopsided.transaction {
            transaction.postings[0].micro -= 5;
            lopsided.digest = transaction.digest();
        }
        assert!(matches!(Walk::default().step(&lopsided), Err(ChainError::Broken { seq: 1, .. })));
    }
}
