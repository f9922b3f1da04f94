//! Checking a chain row by row: whatever was changed, dropped, reordered or cut off is found and named.

use std::fmt;

use forge_contract::Digest;

use super::{Head, Row, Tip, link};
use crate::bundle::key::{Key, Verify};

/// Faults listed; one edit of a chain can break everything after it.
const FAULTS_MAX: usize = 100;

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row is missing, or stands elsewhere.
    Order {
        /// The row that should be here.
        expected: u64,
        /// The row that is.
        found: u64,
    },
    /// A row does not say what it said when it was written.
    Changed {
        /// Which.
        seq: u64,
    },
    /// A row does not follow the one before it: one of them, or its link, was replaced.
    Broken {
        /// Which.
        seq: u64,
    },
    /// The hub signed another chain: rows up to this one were replaced, with everything that hangs on them.
    Unsigned {
        /// The row the head is about.
        seq: u64,
        /// The head before it that does hold; 0 without one.
        after: u64,
    },
    /// A head's signature is not that of the key it names.
    Signature {
        /// The row the head is about.
        seq: u64,
    },
    /// A head is signed by a key other than the one expected.
    Stranger {
        /// The row the head is about.
        seq: u64,
        /// The key that signed it.
        key: Key,
    },
    /// The hub signed for rows that are not here.
    Truncated {
        /// The last row here.
        last: u64,
        /// The last row signed for.
        signed: u64,
    },
    /// A line of an export is none.
    Line {
        /// Its number, from 1.
        line: u64,
        /// Why.
        reason: String,
    },
    /// An export does not end as exports do: it was cut off, or came only in part.
    Unfinished,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { expected, found } => write!(f, "row {expected} is missing: row {found} stands in its place"),
            Self::Changed { seq } => write!(f, "row {seq} was changed"),
            Self::Broken { seq } => write!(f, "row {seq} does not follow the row before it"),
            Self::Unsigned { seq, after } => {
                write!(f, "rows after {after} up to {seq} are not those the hub signed")
            }
            Self::Signature { seq } => write!(f, "the signature of the head at row {seq} does not hold"),
            Self::Stranger { seq, key } => write!(f, "the head at row {seq} is signed by {key}, another hub's key"),
            Self::Truncated { last, signed } => {
                write!(f, "rows are missing at the end: the hub signed row {signed}, the last one here is {last}")
            }
            Self::Line { line, reason } => write!(f, "line {line}: {reason}"),
            Self::Unfinished => f.write_str("the export is cut off: it does not end with the head that ends an export"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows that were there.
    pub rows: u64,
    /// Of these, those whose entry is not shown.
    pub hidden: u64,
    /// Heads whose signature holds and whose link is the chain's.
    pub heads: u64,
    /// The last row a good head is about; 0 without one.
    pub signed: u64,
    /// Where the chain ended.
    pub tip: Tip,
    /// What is wrong, in order; at most a hundred.
    pub faults: Vec<Fault>,
}

/// Checks a chain that comes row by row, with its heads where they belong or after it.
pub struct Verifier<'a> {
    verify: Verify<'a>,
    key: Option<Key>,
    tip: Tip,
    found: Findings,
    /// A head whose row has not come yet, kept by whoever checks.
    kept: Option<Head>,
    /// The last row signed for that has not come.
    ahead: u64,
}

impl<'a> Verifier<'a> {
    /// Of a chain after `before`; with `key`, every head must be signed by it.
    #[must_use]
    pub fn new(before: Tip, key: Option<Key>, verify: Verify<'a>) -> Self {
        Self { verify, key, tip: before, found: Findings { tip: before, ..Findings::default() }, kept: None, ahead: 0 }
    }

    /// Also holds the chain to a head kept from earlier; nothing can be said where its row is before those here.
    #[must_use]
    pub fn against(mut self, kept: Option<Head>) -> Self {
        self.kept = kept.filter(|head| head.seq >= self.tip.seq);
        self.due();
        self
    }

    /// The kept head is judged where its row has come.
    fn due(&mut self) {
        if let Some(head) = self.kept.take_if(|head| head.seq == self.tip.seq) {
            self.head(&head);
        }
    }

    /// Takes note of a fault.
    pub fn fault(&mut self, fault: Fault) {
        if self.found.faults.len() < FAULTS_MAX {
            self.found.faults.push(fault);
        }
    }

    /// The next row, whole.
    pub fn row(&mut self, row: &Row) {
        if row.entry.digest(row.seq, &row.salt) != row.digest {
            self.fault(Fault::Changed { seq: row.seq });
        }
        self.place(row.seq, &row.digest, row.link);
    }

    /// The next row, of which the entry is not shown.
    pub fn hidden(&mut self, seq: u64, digest: &Digest, link: Digest) {
        self.found.hidden += 1;
        self.place(seq, digest, link);
    }

    fn place(&mut self, seq: u64, digest: &Digest, stated: Digest) {
        self.found.rows += 1;
        let expected = self.tip.seq.saturating_add(1);
        if seq != expected {
            self.fault(Fault::Order { expected, found: seq });
        } else if link(&self.tip.link, seq, digest) != stated {
            self.fault(Fault::Broken { seq });
        }
        // As stated: what comes after is judged by itself.
        self.tip = Tip { seq, link: stated };
        self.due();
    }

    /// A head of the row that came last, or of one that should have come.
    pub fn head(&mut self, head: &Head) {
        if self.key.is_some_and(|key| key != head.key) {
            self.fault(Fault::Stranger { seq: head.seq, key: head.key });
        } else if !head.is_signed(self.verify) {
            self.fault(Fault::Signature { seq: head.seq });
        } else if head.seq > self.tip.seq {
            self.ahead = self.ahead.max(head.seq);
        } else if head.tip() == self.tip {
            self.found.heads += 1;
            self.found.signed = self.found.signed.max(head.seq);
        } else {
            self.fault(Fault::Unsigned { seq: head.seq, after: self.found.signed });
        }
    }

    /// What was found.
    #[must_use]
    pub fn end(mut self) -> Findings {
        if let Some(head) = self.kept.take() {
            self.head(&head);
        }
        if self.ahead > self.tip.seq {
            self.fault(Fault::Truncated { last: self.tip.seq, signed: self.ahead });
        }
        self.found.tip = self.tip;
        self.found
    }
}
