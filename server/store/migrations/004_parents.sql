-- The key's columns come first: before 3.41 SQLite's integrity check takes any other order of such a table for damage.
CREATE TABLE parents_new (
    child TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('reference', 'init', 'mask', 'variation', 'remix')),
    position INTEGER NOT NULL,
    parent TEXT NOT NULL,
    PRIMARY KEY (child, role, position)
) WITHOUT ROWID, STRICT;
INSERT INTO parents_new (child, role, position, parent) SELECT child, role, position, parent FROM image_parents;
DROP TABLE image_parents;
ALTER TABLE parents_new RENAME TO image_parents;
CREATE INDEX image_parents_parent ON image_parents (parent);
