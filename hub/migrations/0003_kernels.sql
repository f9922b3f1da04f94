-- Uploaded kernels have an owner and a state: `pending` until verifiers have run their known answers, then `admitted`
-- or `refused`; an admitted one may be `deprecated` or `yanked`. Built-in kernels have no owner and are admitted.
-- `admitted_ms` is when the row was written. A refused row gives way to the next upload under its label.
ALTER TABLE kernels ADD COLUMN project TEXT REFERENCES projects (id);
ALTER TABLE kernels ADD COLUMN state TEXT NOT NULL DEFAULT 'admitted';
ALTER TABLE kernels ADD COLUMN code TEXT;
ALTER TABLE kernels ADD COLUMN reason TEXT;
ALTER TABLE kernels ADD COLUMN decided_ms INTEGER;
-- The known answers that verifiers found true: one JSON array.
ALTER TABLE kernels ADD COLUMN checks TEXT NOT NULL DEFAULT '[]';
CREATE INDEX kernels_by_project ON kernels (project) WHERE project IS NOT NULL;

-- Verifiers are agents the operator runs: what they say of a kernel settles it.
ALTER TABLE enrol_tokens ADD COLUMN verifier INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN verifier INTEGER NOT NULL DEFAULT 0;
