-- The job that this one repeats.
ALTER TABLE jobs ADD COLUMN replay_of BLOB;
