-- Rows are only ever added to `journal`. `state` holds the newest value of what must survive a restart.
CREATE TABLE journal (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    at    TEXT NOT NULL,
    kind  TEXT NOT NULL,
    id    TEXT NOT NULL,
    body  TEXT NOT NULL
) STRICT;
CREATE INDEX journal_by_id ON journal (id) WHERE id <> '';
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append only'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append only'); END;
CREATE TABLE state (
    name  TEXT PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;
