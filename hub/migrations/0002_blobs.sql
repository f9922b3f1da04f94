-- Which project may name which content. The bytes lie once on disk, under their digest, whoever brought them; a project
-- gets its row by sending them, so that knowing a digest is not enough.
CREATE TABLE blobs (
    project    TEXT NOT NULL REFERENCES projects (id),
    digest     BLOB NOT NULL,
    bytes      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (project, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_age ON blobs (project, created_ms, digest);
