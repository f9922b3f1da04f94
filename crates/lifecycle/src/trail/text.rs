//! The export: one JSON object a line, for people, for programs, and for [`check`].
//!
//! ```text
//! {"format":"forgepool audit 1","scope":"project default","from":1,"before":"000..."}
//! {"seq":1,"at_ms":...,"project":"default",...,"salt":"...","digest":"...","link":"..."}    a row
//! {"seq":2,"digest":"...","link":"..."}                                                     a row of somebody else
//! {"head":{"seq":2,"link":"...","purpose":"periodic",...,"key":"...","signature":"..."}}
//! {"head":{...,"purpose":"export","scope":"project default from 1",...}}                    always the last line
//! ```
//!
//! Every line has one spelling: a line that says the same in other bytes is refused.

use forge_contract::Digest;
use serde::{Deserialize, Serialize};

use super::verify::{Fault, Findings, Verifier};
use super::{Entry, Head, Purpose, Row, Salt, Tip};
use crate::bundle::key::{Key, Verify};

/// The media type of an export.
pub const MEDIA_TYPE: &str = "application/vnd.forgepool.audit+jsonl";
/// What the first line says.
pub const FORMAT: &str = "forgepool audit 1";
/// Longest line, bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// [`FORMAT`].
    pub format: String,
    /// Whose rows are shown.
    pub scope: String,
    /// The first row.
    pub from: u64,
    /// The link before it.
    pub before: Digest,
}

impl Opening {
    /// Of an export of what `scope` may see after `before`.
    #[must_use]
    pub fn new(scope: &str, before: Tip) -> Self {
        Self { format: FORMAT.into(), scope: scope.into(), from: before.seq + 1, before: before.link }
    }

    /// What the head that ends the export must name.
    #[must_use]
    pub fn sealed(&self) -> String {
        format!("{} from {} after {}", self.scope, self.from, self.before)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    seq: u64,
    at_ms: u64,
    organisation: String,
    project: String,
    key: String,
    action: String,
    target: String,
    status: u16,
    code: String,
    note: String,
    body: Option<Digest>,
    peer: String,
    trace_id: String,
    salt: Salt,
    digest: Digest,
    link: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hidden {
    seq: u64,
    digest: Digest,
    link: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    head: Head,
}

fn line(value: &impl Serialize) -> String {
    // Texts, integers and digests always have a JSON form.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// The first line.
#[must_use]
pub fn opening(opening: &Opening) -> String {
    line(opening)
}

/// A row, whole.
#[must_use]
pub fn row(row: &Row) -> String {
    let Row { seq, entry, salt, digest, link } = row.clone();
    let Entry { at_ms, organisation, project, key, action, target, status, code, note, body, peer, trace_id } = entry;
    line(&Shown {
        seq,
        at_ms,
        organisation,
        project,
        key,
        action,
        target,
        status,
        code,
        note,
        body,
        peer,
        trace_id,
        salt,
        digest,
        link,
    })
}

/// A row without what it says.
#[must_use]
pub fn hidden(row: &Row) -> String {
    line(&Hidden { seq: row.seq, digest: row.digest, link: row.link })
}

/// A head.
#[must_use]
pub fn head(head: &Head) -> String {
    line(&Signed { head: head.clone() })
}

/// Checks an export that comes line by line.
pub struct Checker<'a> {
    verifier: Option<Verifier<'a>>,
    verify: Verify<'a>,
    key: Option<Key>,
    at_least: Option<Head>,
    opening: Option<Opening>,
    lines: u64,
    finished: bool,
}

impl<'a> Checker<'a> {
    /// With `key`, every head must be signed by it; with `at_least`, the rows of that head must be there.
    #[must_use]
    pub fn new(key: Option<Key>, at_least: Option<Head>, verify: Verify<'a>) -> Self {
        Self { verifier: None, verify, key, at_least, opening: None, lines: 0, finished: false }
    }

    /// The next line, without its line feed.
    pub fn line(&mut self, text: &str) {
        self.lines += 1;
        let (key, verify) = (self.key, self.verify);
        if self.opening.is_none() {
            let read = read::<Opening>(text);
            let opening = match read {
                Ok(opening) if opening.format == FORMAT && opening.from > 0 => opening,
                Ok(_) => return self.bad("the format is not one this program knows".into()),
                Err(reason) => return self.bad(reason),
            };
            let before = Tip { seq: opening.from - 1, link: opening.before };
            self.verifier = Some(Verifier::new(before, key, verify).against(self.at_least.take()));
            self.opening = Some(opening);
            return;
        }
        if self.finished {
            return self.bad("nothing follows the head that ends an export".into());
        }
        if let Ok(Signed { head }) = read(text) {
            return self.head(&head);
        }
        if let Ok(Hidden { seq, digest, link }) = read(text) {
            self.verifier().hidden(seq, &digest, link);
        } else {
            match read::<Shown>(text) {
                Ok(shown) => self.verifier().row(&shown.into()),
                Err(reason) => self.bad(reason),
            }
        }
    }

    fn verifier(&mut self) -> &mut Verifier<'a> {
        let (key, verify) = (self.key, self.verify);
        self.verifier.get_or_insert_with(|| Verifier::new(Tip::default(), key, verify))
    }

    fn head(&mut self, head: &Head) {
        self.verifier().head(head);
        if head.purpose == Purpose::Export {
            self.finished = true;
            let sealed = self.opening.as_ref().map(Opening::sealed);
            if sealed.as_ref() != Some(&head.scope) {
                self.bad("the export's first line is not the one its last was signed for".into());
            }
        }
    }

    /// The last line has no line feed.
    pub fn cut_off(&mut self) {
        self.bad("the last line does not end".into());
    }

    fn bad(&mut self, reason: String) {
        let line = self.lines;
        self.verifier().fault(Fault::Line { line, reason });
    }

    /// What was found, and whose rows are shown.
    #[must_use]
    pub fn end(mut self) -> (Findings, Option<Opening>) {
        if !self.finished {
            self.verifier().fault(Fault::Unfinished);
        }
        self.verifier();
        let found = self.verifier.map(Verifier::end).unwrap_or_default();
        (found, self.opening)
    }
}

impl From<Shown> for Row {
    fn from(shown: Shown) -> Self {
        let Shown { seq, at_ms, organisation, project, key, action, target, status, .. } = shown;
        let Shown { code, note, body, peer, trace_id, salt, digest, link, .. } = shown;
        let entry =
            Entry { at_ms, organisation, project, key, action, target, status, code, note, body, peer, trace_id };
        Self { seq, entry, salt, digest, link }
    }
}

/// A line in its one spelling.
fn read<T: Serialize + for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    if text.len() > LINE_BYTES_MAX {
        return Err(format!("it has more than {LINE_BYTES_MAX} bytes"));
    }
    let value: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let written = serde_json::to_string(&value).map_err(|error| error.to_string())?;
    if written == text { Ok(value) } else { Err("it is not spelled as the hub spells it".into()) }
}

/// Checks a whole export; see [`Checker`].
#[must_use]
pub fn check(export: &str, key: Option<Key>, at_least: Option<Head>, verify: Verify<'_>) -> Findings {
    let mut checker = Checker::new(key, at_least, verify);
    let whole = export.strip_suffix('\n');
    for text in whole.unwrap_or(export).split('\n') {
        checker.line(text);
    }
    if whole.is_none() {
        checker.cut_off();
    }
    checker.end().0
}
