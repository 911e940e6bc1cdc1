-- Times are microseconds since 1970 in UTC. Ids are UUIDv7 texts. JSON is kept as text.

CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;

-- What an administrator set while the studio ran.
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, changed_us INTEGER NOT NULL, changed_by TEXT) WITHOUT ROWID, STRICT;

-- People, and how they get in. The owner of a fresh studio is made by the first sign-in link and has no password until one is set.
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'user', 'viewer')),
    password TEXT,
    is_disabled INTEGER NOT NULL DEFAULT 0,
    quota_jobs INTEGER,
    quota_pictures INTEGER,
    quota_mib INTEGER,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_us INTEGER NOT NULL,
    used_us INTEGER NOT NULL,
    address TEXT,
    user_agent TEXT
) WITHOUT ROWID, STRICT;
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    used_us INTEGER,
    expires_us INTEGER,
    revoked_us INTEGER
) STRICT;
CREATE INDEX tokens_user ON tokens (user_id);

-- Models that were found, what the worker says of each, and how fast they were here.
CREATE TABLE models (
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    info TEXT NOT NULL,
    seen_us INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE speeds (
    model TEXT NOT NULL,
    device TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    step_ms REAL NOT NULL,
    rest_ms REAL NOT NULL,
    n INTEGER NOT NULL,
    measured_us INTEGER NOT NULL,
    PRIMARY KEY (model, device, width, height)
) WITHOUT ROWID, STRICT;

-- Prompts that were enriched, whether they were used or not.
CREATE TABLE enrichments (
    id TEXT PRIMARY KEY,
    owner TEXT REFERENCES users (id) ON DELETE SET NULL,
    created_us INTEGER NOT NULL,
    before TEXT NOT NULL,
    after TEXT,
    directions TEXT NOT NULL,
    source TEXT NOT NULL,
    endpoint TEXT,
    model TEXT,
    seed INTEGER,
    duration_ms INTEGER,
    error TEXT
) STRICT;
CREATE INDEX enrichments_owner ON enrichments (owner, created_us);

-- The queue. Among what waits, higher priority comes first, then the lower position.
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT REFERENCES users (id) ON DELETE SET NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'held')),
    priority INTEGER NOT NULL DEFAULT 0,
    position REAL NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    n_pictures INTEGER NOT NULL,
    n_done INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    source TEXT NOT NULL,
    idempotency_key TEXT,
    request_hash TEXT,
    webhook TEXT,
    device TEXT,
    error_code TEXT,
    error TEXT,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    ended_us INTEGER
) STRICT;
CREATE INDEX jobs_waiting ON jobs (priority DESC, position) WHERE state = 'queued';
CREATE INDEX jobs_waiting_owner ON jobs (priority, coalesce(owner, ''), position) WHERE state = 'queued';
CREATE INDEX jobs_state ON jobs (state, created_us);
CREATE INDEX jobs_created ON jobs (created_us);
CREATE INDEX jobs_owner ON jobs (owner, created_us);
CREATE INDEX jobs_owner_state ON jobs (owner, state);
CREATE INDEX jobs_owner_started ON jobs (coalesce(owner, ''), started_us);
CREATE INDEX jobs_started ON jobs (started_us);
CREATE UNIQUE INDEX jobs_idempotency ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_us INTEGER NOT NULL,
    error TEXT
) STRICT;
CREATE INDEX webhooks_next ON webhooks (next_us);

-- Pictures: made here or uploaded. settings is the complete recipe, as it stands in the file as well.
CREATE TABLE images (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('generated', 'upload')),
    owner TEXT REFERENCES users (id) ON DELETE SET NULL,
    job_id TEXT REFERENCES jobs (id) ON DELETE SET NULL,
    job_index INTEGER,
    created_us INTEGER NOT NULL,
    zone_minutes INTEGER NOT NULL,
    deleted_us INTEGER,
    is_favourite INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    blurhash TEXT NOT NULL,
    model TEXT,
    model_hash TEXT,
    prompt TEXT,
    prompt_enriched TEXT,
    prompt_sent TEXT,
    negative_prompt TEXT,
    enrichment_id TEXT REFERENCES enrichments (id) ON DELETE SET NULL,
    seed INTEGER,
    steps INTEGER,
    guidance REAL,
    strength REAL,
    duration_ms INTEGER,
    engine TEXT,
    device TEXT,
    settings TEXT,
    name TEXT,
    UNIQUE (job_id, job_index)
) STRICT;
-- number grows with time, and every index ends with it: all lists are in its order, and pages go on from it.
CREATE INDEX images_deleted ON images (deleted_us);
CREATE INDEX images_owner ON images (owner, deleted_us);
CREATE INDEX images_model ON images (model, deleted_us);
CREATE INDEX images_size ON images (width, height, deleted_us);
CREATE INDEX images_favourite ON images (is_favourite, deleted_us) WHERE is_favourite = 1;
CREATE INDEX images_kind ON images (kind, deleted_us);
CREATE INDEX images_created ON images (created_us);
CREATE INDEX images_seed ON images (seed);
CREATE INDEX images_sha256 ON images (sha256);

CREATE TABLE image_parents (
    child TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    parent TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('reference', 'init', 'mask', 'variation', 'remix')),
    position INTEGER NOT NULL,
    PRIMARY KEY (child, role, position)
) WITHOUT ROWID, STRICT;
CREATE INDEX image_parents_parent ON image_parents (parent);

CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE) STRICT;
CREATE TABLE image_tags (
    tag_id INTEGER NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    PRIMARY KEY (tag_id, image_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX image_tags_image ON image_tags (image_id);

CREATE TABLE albums (
    id TEXT PRIMARY KEY,
    owner TEXT REFERENCES users (id) ON DELETE SET NULL,
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;
CREATE TABLE album_images (
    album_id TEXT NOT NULL REFERENCES albums (id) ON DELETE CASCADE,
    image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    added_us INTEGER NOT NULL,
    PRIMARY KEY (album_id, image_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX album_images_image ON album_images (image_id);

-- What is searched: everything that was said of a picture, its seed and its id. The words are kept once, in images; store/images.c
-- keeps the two together, since triggers may not write to virtual tables where the schema is not trusted.
CREATE VIRTUAL TABLE prompts USING fts5 (
    prompt, prompt_enriched, prompt_sent, negative_prompt, name, seed, id,
    content = 'images', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
-- The audit log: append-only, also for the program itself; only retention removes, and leaves a record.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    actor TEXT,
    actor_id TEXT,
    address TEXT,
    user_agent TEXT,
    action TEXT NOT NULL,
    object TEXT,
    details TEXT,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (time_us);
CREATE INDEX audit_action ON audit (action, seq);
CREATE INDEX audit_actor ON audit (actor, seq);
CREATE INDEX audit_object ON audit (object, seq);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE (ABORT, 'the audit log is append-only');
END;
