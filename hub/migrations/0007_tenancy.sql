-- Organisations own projects, projects own keys. The operator's organisation is the one whose admins run the hub; what was
-- there before belongs to it. `ceilings` bound what an organisation may set as limits of its projects. `limits`, `ceilings`
-- and `pool` are JSON objects; a member that is absent says nothing.
CREATE TABLE organisations (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    operator   INTEGER NOT NULL DEFAULT 0,
    ceilings   TEXT NOT NULL DEFAULT '{}',
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO organisations (id, name, operator, created_ms) VALUES ('default', 'default', 1, unixepoch() * 1000);

-- SQLite adds no column that refers to another table and has a value: the writer sees to it that the organisation exists.
ALTER TABLE projects ADD COLUMN organisation TEXT NOT NULL DEFAULT 'default';
ALTER TABLE projects ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE projects ADD COLUMN pool TEXT NOT NULL DEFAULT '{}';
CREATE INDEX projects_by_organisation ON projects (organisation, id);

-- People of an organisation. Who was removed stays on record.
CREATE TABLE members (
    id           TEXT PRIMARY KEY,
    organisation TEXT NOT NULL REFERENCES organisations (id),
    name         TEXT NOT NULL,
    role         TEXT NOT NULL,
    created_ms   INTEGER NOT NULL,
    removed_ms   INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX members_by_name ON members (organisation, name) WHERE removed_ms IS NULL;

-- A key is known to people by its id. `used_ms` is coarse: it moves once a minute at most.
ALTER TABLE api_keys ADD COLUMN id TEXT;
ALTER TABLE api_keys ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN member TEXT REFERENCES members (id);
ALTER TABLE api_keys ADD COLUMN expires_ms INTEGER;
ALTER TABLE api_keys ADD COLUMN used_ms INTEGER;
UPDATE api_keys SET id = 'key_' || lower(hex(randomblob(10)));
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);
CREATE INDEX api_keys_by_project ON api_keys (project, id);
CREATE INDEX api_keys_by_member ON api_keys (member) WHERE member IS NOT NULL;

-- What concurrent jobs are counted by: the platform's own errata do not count.
CREATE INDEX jobs_running ON jobs (project) WHERE finished_ms IS NULL AND erratum_of IS NULL;

-- An agent that is reserved for a project takes no other project's work.
ALTER TABLE enrol_tokens ADD COLUMN reserved TEXT REFERENCES projects (id);
ALTER TABLE agents ADD COLUMN reserved TEXT REFERENCES projects (id);
CREATE INDEX agents_by_project ON agents (project);
