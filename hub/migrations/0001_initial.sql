-- Everything the hub acknowledges. Times are milliseconds since 1970, digests 32 raw bytes, job ids the 16 bytes of
-- a ULID, big-endian, so that their order is the order of acceptance.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A key is shown once; what is kept is its BLAKE3 digest and enough of its text to recognise it.
CREATE TABLE api_keys (
    hash       BLOB PRIMARY KEY,
    project    TEXT NOT NULL REFERENCES projects (id),
    hint       TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id              BLOB PRIMARY KEY,
    project         TEXT NOT NULL REFERENCES projects (id),
    client_job_id   TEXT,
    trace_id        TEXT NOT NULL,
    op              TEXT NOT NULL,
    envelope        BLOB,
    envelope_digest BLOB NOT NULL,
    plan            BLOB,
    phase           TEXT NOT NULL,
    code            TEXT,
    accepted_ms     INTEGER NOT NULL,
    finished_ms     INTEGER,
    -- The answer as it was given; immutable once written.
    document        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_by_project ON jobs (project, id);
CREATE INDEX jobs_unfinished ON jobs (id) WHERE finished_ms IS NULL;

CREATE TABLE idempotency (
    project    TEXT NOT NULL REFERENCES projects (id),
    key        TEXT NOT NULL,
    digest     BLOB NOT NULL,
    job        BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (project, key)
) STRICT, WITHOUT ROWID;

-- Shards a restarted hub need not compute again. `fragment` is null where `fragment_digest` names a blob on disk.
CREATE TABLE accepted (
    job             BLOB NOT NULL,
    stage           INTEGER NOT NULL,
    shard           INTEGER NOT NULL,
    body            BLOB NOT NULL,
    fragment        BLOB,
    fragment_digest BLOB,
    UNIQUE (job, stage, shard)
) STRICT;

-- Every attempt that ended, good or bad.
CREATE TABLE attempts (
    job        BLOB NOT NULL,
    stage      INTEGER NOT NULL,
    shard      INTEGER NOT NULL,
    lease      INTEGER NOT NULL,
    agent      BLOB NOT NULL,
    code       TEXT,
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX attempts_by_job ON attempts (job, stage, shard, lease);

CREATE TABLE artifacts (
    job        BLOB NOT NULL,
    place      INTEGER NOT NULL,
    name       TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest     BLOB NOT NULL,
    bytes      INTEGER NOT NULL,
    PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;

-- Objects too small to deserve a file of their own. Content-addressed like the files.
CREATE TABLE objects (
    digest BLOB NOT NULL UNIQUE,
    bytes  BLOB NOT NULL
) STRICT;

CREATE TABLE agents (
    id           BLOB PRIMARY KEY,
    public_key   BLOB NOT NULL,
    project      TEXT NOT NULL,
    enrolled_ms  INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL,
    state        TEXT NOT NULL,
    capability   TEXT,
    -- The failure code an agent was refuted with: it gets no more work.
    quarantined  TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE enrol_tokens (
    hash        BLOB PRIMARY KEY,
    project     TEXT NOT NULL,
    created_ms  INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    redeemed_by BLOB,
    redeemed_ms INTEGER
) STRICT, WITHOUT ROWID;

-- `name@version` means one digest for ever.
CREATE TABLE kernels (
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    bytes       INTEGER NOT NULL,
    manifest    TEXT NOT NULL,
    admitted_ms INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

-- One line per settled job; each holds the digest of the line before it.
CREATE TABLE ledger (
    seq      INTEGER PRIMARY KEY,
    job      BLOB NOT NULL UNIQUE,
    project  TEXT NOT NULL,
    entry    TEXT NOT NULL,
    previous BLOB NOT NULL,
    digest   BLOB NOT NULL
) STRICT;
