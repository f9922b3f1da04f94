-- Who changed what, when, from where: rows are added at the end and nothing else. `digest` is over the row with its salt,
-- `link` over the link before it and the digest (lifecycle::trail), so that an edit behind the triggers' back is found.
CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY,
    at_ms        INTEGER NOT NULL,
    organisation TEXT NOT NULL,
    project      TEXT NOT NULL,
    key          TEXT NOT NULL,
    action       TEXT NOT NULL,
    target       TEXT NOT NULL,
    status       INTEGER NOT NULL,
    code         TEXT NOT NULL,
    note         TEXT NOT NULL,
    body         BLOB,
    peer         TEXT NOT NULL,
    trace_id     TEXT NOT NULL,
    salt         BLOB NOT NULL,
    digest       BLOB NOT NULL,
    link         BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_organisation ON audit (organisation, seq);
CREATE INDEX audit_by_project ON audit (project, seq);
CREATE TRIGGER audit_goes_on BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'rows of the audit log are added at its end');
END;
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'rows of the audit log never change');
END;
CREATE TRIGGER audit_remains BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'rows of the audit log never go');
END;

-- The hub's signature over where the log stood. `seq` is 0 before the first row.
CREATE TABLE audit_heads (
    seq       INTEGER NOT NULL,
    link      BLOB NOT NULL,
    at_ms     INTEGER NOT NULL,
    purpose   TEXT NOT NULL,
    key       BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;
CREATE INDEX audit_heads_by_seq ON audit_heads (seq);
CREATE TRIGGER audit_heads_stay BEFORE UPDATE ON audit_heads
BEGIN
    SELECT RAISE(ABORT, 'heads of the audit log never change');
END;
CREATE TRIGGER audit_heads_remain BEFORE DELETE ON audit_heads
BEGIN
    SELECT RAISE(ABORT, 'heads of the audit log never go');
END;
