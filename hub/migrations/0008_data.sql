-- Small values by namespace and key. `revision` is never used twice, also after a deletion: it is the entity tag, so that
-- a compare-and-set cannot mistake a later value for an earlier one. An entry either holds its bytes in `value`, or stands
-- for an artifact of `job` by `digest`. What has expired is absent for readers, and swept later.
CREATE TABLE kv (
    revision   INTEGER PRIMARY KEY AUTOINCREMENT,
    project    TEXT NOT NULL REFERENCES projects (id),
    namespace  TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      BLOB,
    digest     BLOB NOT NULL,
    bytes      INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    job        BLOB,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    UNIQUE (project, namespace, key)
) STRICT;
CREATE INDEX kv_by_expiry ON kv (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX kv_by_digest ON kv (digest) WHERE value IS NULL;

-- Arrays by name and version. A version never changes; one that was deleted keeps its row, without a digest, so that its
-- number is never given again. The file of `digest` is in numpy's format, its numbers from `data_at` on.
CREATE TABLE vmem (
    project    TEXT NOT NULL REFERENCES projects (id),
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    digest     BLOB,
    bytes      INTEGER NOT NULL,
    dtype      TEXT NOT NULL,
    shape      TEXT NOT NULL,
    data_at    INTEGER NOT NULL,
    job        BLOB,
    part       TEXT,
    created_ms INTEGER NOT NULL,
    deleted_ms INTEGER,
    PRIMARY KEY (project, name, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX vmem_by_digest ON vmem (digest) WHERE digest IS NOT NULL;

-- What a job runs and reads, by content: it stays for ever, so that the job can be repeated.
CREATE TABLE job_content (
    digest BLOB NOT NULL,
    job    BLOB NOT NULL,
    PRIMARY KEY (digest, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_content_by_job ON job_content (job);
INSERT INTO job_content (digest, job)
    SELECT DISTINCT unhex(found.atom), jobs.id
    FROM jobs, json_tree(CAST(jobs.plan AS TEXT)) AS found
    WHERE jobs.plan IS NOT NULL AND json_valid(CAST(jobs.plan AS TEXT)) AND found.type = 'text'
      AND (found.fullkey = '$.component' OR found.fullkey LIKE '$.stages[%].inputs[%].source.content.digest')
      AND length(unhex(found.atom)) = 32;

-- Files that nothing names, and since when that is known. What is in no row here is either named or not looked at yet.
CREATE TABLE garbage (
    digest   BLOB PRIMARY KEY,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Every place that names a file needs an index by digest. Artifacts up to 128 KiB have no file.
CREATE INDEX blobs_by_digest ON blobs (digest);
CREATE INDEX artifacts_by_digest ON artifacts (digest) WHERE bytes > 131072;
CREATE INDEX accepted_by_digest ON accepted (fragment_digest) WHERE fragment_digest IS NOT NULL;
