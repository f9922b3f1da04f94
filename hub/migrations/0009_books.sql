-- The books: double entry in integers of micro-credits. The table `ledger` goes on with its one line per job.

-- What was agreed for a job when it was accepted, and what it cost. An erratum run has none: nobody is charged for it.
-- Jobs from before this table have none either.
CREATE TABLE charges (
    job             BLOB PRIMARY KEY,
    project         TEXT NOT NULL,
    kernel          TEXT NOT NULL,
    mode            TEXT NOT NULL,
    tariff          TEXT NOT NULL,
    hold_micro      INTEGER NOT NULL,
    accepted_ms     INTEGER NOT NULL,
    finished_ms     INTEGER,
    fuel            INTEGER NOT NULL DEFAULT 0,
    check_fuel      INTEGER NOT NULL DEFAULT 0,
    -- What the client was charged; what was given back of that after a correction.
    charged_micro   INTEGER NOT NULL DEFAULT 0,
    corrected_micro INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_open ON charges (project, hold_micro) WHERE finished_ms IS NULL;
CREATE INDEX charges_ended ON charges (project, finished_ms, charged_micro) WHERE finished_ms IS NOT NULL;

-- What was used, by day: what budgets and reports add up. Days since 1970, UTC. `credits_micro` is what it costs, charged
-- or (in `test`) only stated.
CREATE TABLE usage_days (
    project       TEXT NOT NULL,
    day           INTEGER NOT NULL,
    kernel        TEXT NOT NULL,
    mode          TEXT NOT NULL,
    jobs          INTEGER NOT NULL,
    fuel          INTEGER NOT NULL,
    check_fuel    INTEGER NOT NULL,
    credits_micro INTEGER NOT NULL,
    charged_micro INTEGER NOT NULL,
    eur_micro     INTEGER NOT NULL,
    PRIMARY KEY (project, day, kernel, mode)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_day ON usage_days (day);

-- What every earlier job's ledger line says.
INSERT INTO usage_days
SELECT l.project, CAST(json_extract(l.entry, '$.at_ms') AS INTEGER) / 86400000,
    CASE instr(j.op, ' ') WHEN 0 THEN j.op ELSE substr(j.op, 1, instr(j.op, ' ') - 1) END,
    json_extract(l.entry, '$.mode'), COUNT(*), SUM(CAST(json_extract(l.entry, '$.fuel') AS INTEGER)), 0,
    SUM(CAST(json_extract(l.entry, '$.credits_micro') AS INTEGER)),
    SUM(CASE json_extract(l.entry, '$.charged') WHEN 1 THEN CAST(json_extract(l.entry, '$.credits_micro') AS INTEGER) ELSE 0 END),
    SUM(CAST(json_extract(l.entry, '$.eur_micro') AS INTEGER))
FROM ledger l JOIN jobs j ON j.id = l.job
WHERE json_extract(l.entry, '$.mode') IS NOT NULL AND json_extract(l.entry, '$.erratum_of') IS NULL
GROUP BY 1, 2, 3, 4;

-- The most a project may spend: micro-credits in the calendar month (`month`), ever (`total`), or beyond what it was
-- granted (`prepaid`). A project without a row is unlimited.
CREATE TABLE budgets (
    project      TEXT PRIMARY KEY REFERENCES projects (id),
    budget_micro INTEGER NOT NULL,
    period       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Transactions with their place in the chain. `body` is canonical JSON, `digest` is made of it, `link` of the link before,
-- the number and the digest.
CREATE TABLE transactions (
    seq     INTEGER PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    project TEXT,
    job     BLOB,
    agent   BLOB,
    body    TEXT NOT NULL,
    digest  BLOB NOT NULL,
    link    BLOB NOT NULL
) STRICT;
CREATE INDEX transactions_by_project ON transactions (project, seq) WHERE project IS NOT NULL;
CREATE INDEX transactions_by_job ON transactions (job, seq) WHERE job IS NOT NULL;
CREATE INDEX transactions_by_agent ON transactions (agent, seq) WHERE agent IS NOT NULL;
-- Held once, charged once, whatever the program does.
CREATE UNIQUE INDEX transactions_held_once ON transactions (job) WHERE kind = 'hold';
CREATE UNIQUE INDEX transactions_settled_once ON transactions (job) WHERE kind IN ('settle', 'refund');

-- Written before their transaction, which is refused where they do not sum to 0.
CREATE TABLE postings (
    seq     INTEGER NOT NULL,
    account TEXT NOT NULL,
    micro   INTEGER NOT NULL,
    PRIMARY KEY (seq, account)
) STRICT, WITHOUT ROWID;

-- Sums of postings by account. Those that must not be below 0 cannot be; an emptied hold goes.
CREATE TABLE balances (
    account TEXT PRIMARY KEY,
    micro   INTEGER NOT NULL,
    CHECK (micro >= 0 OR NOT (account GLOB 'hold:*' OR account GLOB 'held:*' OR account GLOB 'payable:*'
        OR account IN ('paid', 'platform:forfeited')))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER postings_count BEFORE INSERT ON postings
BEGIN
    SELECT RAISE(ABORT, 'postings come before their transaction')
    WHERE EXISTS (SELECT 1 FROM transactions WHERE seq >= NEW.seq);
    -- A new row's CHECK is made before a conflict is seen: the row has to be there first.
    INSERT INTO balances (account, micro)
    SELECT NEW.account, 0 WHERE NOT EXISTS (SELECT 1 FROM balances WHERE account = NEW.account);
    UPDATE balances SET micro = micro + NEW.micro WHERE account = NEW.account;
    DELETE FROM balances WHERE account = NEW.account AND micro = 0;
END;
CREATE TRIGGER transactions_balance BEFORE INSERT ON transactions
BEGIN
    SELECT RAISE(ABORT, 'postings do not sum to 0')
    WHERE (SELECT COALESCE(SUM(micro), 0) FROM postings WHERE seq = NEW.seq) <> 0;
    SELECT RAISE(ABORT, 'transactions are numbered without gaps')
    WHERE NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM transactions);
END;
CREATE TRIGGER transactions_stay BEFORE UPDATE ON transactions
BEGIN
    SELECT RAISE(ABORT, 'transactions never change');
END;
CREATE TRIGGER transactions_remain BEFORE DELETE ON transactions
BEGIN
    SELECT RAISE(ABORT, 'transactions never go');
END;
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings
BEGIN
    SELECT RAISE(ABORT, 'postings never change');
END;
CREATE TRIGGER postings_remain BEFORE DELETE ON postings
BEGIN
    SELECT RAISE(ABORT, 'postings never go');
END;

-- The numbers of payments from outside: each is posted once.
CREATE TABLE payments (
    kind      TEXT NOT NULL,
    reference TEXT NOT NULL,
    content   BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    PRIMARY KEY (kind, reference)
) STRICT, WITHOUT ROWID;

-- `payable_micro` falls by what was paid.
ALTER TABLE agents ADD COLUMN paid_micro INTEGER NOT NULL DEFAULT 0;
