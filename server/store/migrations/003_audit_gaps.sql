-- What retention removed from the front of the audit log, each removal with a signature. A later removal begins where the one
-- before it ended, so the log begins after the last one.
CREATE TABLE audit_gaps (
    last_seq INTEGER PRIMARY KEY,
    first_seq INTEGER NOT NULL,
    last_hash TEXT NOT NULL,
    removed_us INTEGER NOT NULL,
    signature TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM audit_gaps WHERE last_seq >= OLD.seq) BEGIN
    SELECT RAISE (ABORT, 'the audit log is append-only');
END;
CREATE INDEX audit_actor_id ON audit (actor_id, seq);
