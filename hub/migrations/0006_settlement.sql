-- `accepted` counts like `clean`, and no fault takes it back: it is the clock by which stakes settle. A readmitted agent is
-- on probation until `clean` says otherwise; a removed one is refused at the door. The sums are those of its stakes.
ALTER TABLE agents ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN readmitted_ms INTEGER;
ALTER TABLE agents ADD COLUMN removed_ms INTEGER;
ALTER TABLE agents ADD COLUMN held_micro INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN payable_micro INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN forfeited_micro INTEGER NOT NULL DEFAULT 0;
UPDATE agents SET accepted = clean;

-- An erratum run: the finished job whose doubtful shards it runs again, and the last lease of what it took over from there.
ALTER TABLE jobs ADD COLUMN erratum_of BLOB;
ALTER TABLE jobs ADD COLUMN erratum_after INTEGER;
CREATE INDEX jobs_by_erratum ON jobs (erratum_of) WHERE erratum_of IS NOT NULL;

-- What of a finished job rests on one agent: `held`, then `payable` or `forfeited`. `accepted` is the agent's count when
-- the job ended. Jobs that ended before this table have none.
CREATE TABLE stakes (
    job              BLOB NOT NULL,
    agent            BLOB NOT NULL,
    shards_alone     INTEGER NOT NULL,
    fuel_alone       INTEGER NOT NULL,
    shards_confirmed INTEGER NOT NULL,
    fuel_confirmed   INTEGER NOT NULL,
    credits_micro    INTEGER NOT NULL,
    accepted         INTEGER NOT NULL,
    taken_ms         INTEGER NOT NULL,
    state            TEXT NOT NULL,
    ended_ms         INTEGER,
    PRIMARY KEY (job, agent)
) STRICT, WITHOUT ROWID;
CREATE INDEX stakes_held ON stakes (agent, accepted) WHERE state = 'held';
CREATE INDEX stakes_held_by_age ON stakes (taken_ms) WHERE state = 'held';

-- Doubts about finished jobs: `pending`, `running` in the job `run`, then `upheld`, `corrected`, or `void` where nothing
-- rested on the agent after all.
CREATE TABLE errata (
    seq      INTEGER PRIMARY KEY,
    job      BLOB NOT NULL,
    agent    BLOB NOT NULL,
    reason   TEXT NOT NULL,
    state    TEXT NOT NULL,
    noted_ms INTEGER NOT NULL,
    due_ms   INTEGER NOT NULL,
    failed   INTEGER NOT NULL DEFAULT 0,
    run      BLOB,
    shards   INTEGER,
    before   BLOB,
    after    BLOB,
    record   BLOB,
    ended_ms INTEGER
) STRICT;
CREATE INDEX errata_by_job ON errata (job);
CREATE INDEX errata_by_run ON errata (run) WHERE run IS NOT NULL;
CREATE INDEX errata_open ON errata (due_ms) WHERE state = 'pending';

-- Why an agent's standing moved. Rows are added and nothing else.
CREATE TABLE agent_events (
    seq    INTEGER PRIMARY KEY,
    agent  BLOB NOT NULL,
    at_ms  INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    job    BLOB,
    stage  INTEGER,
    shard  INTEGER,
    detail TEXT
) STRICT;
CREATE INDEX agent_events_by_agent ON agent_events (agent, seq);
CREATE TRIGGER agent_events_stay BEFORE UPDATE ON agent_events
BEGIN
    SELECT RAISE(ABORT, 'events of agents never change');
END;
CREATE TRIGGER agent_events_remain BEFORE DELETE ON agent_events
BEGIN
    SELECT RAISE(ABORT, 'events of agents never go');
END;
