-- Who an agent belongs to: agents of one provider never check each other. Without a provider an agent is its own.
-- `clean` counts the shards accepted from an agent since it enrolled or last went wrong; it decides how often it is audited.
ALTER TABLE enrol_tokens ADD COLUMN provider TEXT;
ALTER TABLE agents ADD COLUMN provider TEXT;
ALTER TABLE agents ADD COLUMN clean INTEGER NOT NULL DEFAULT 0;
