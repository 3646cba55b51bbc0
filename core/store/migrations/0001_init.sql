-- Times are milliseconds since 1970; columns that hold JSON say so with json_valid.

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  title TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN
    ('queued', 'running', 'paused', 'stopping', 'completed', 'failed', 'interrupted', 'cancelled')),
  progress TEXT CHECK (json_valid(progress)),
  subject_id TEXT,
  can_pause INTEGER NOT NULL CHECK (can_pause IN (0, 1)),
  can_cancel INTEGER NOT NULL CHECK (can_cancel IN (0, 1)),
  error TEXT CHECK (json_valid(error)),
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TABLE job_lines (
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  n INTEGER NOT NULL,
  line TEXT NOT NULL,
  PRIMARY KEY (job_id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE sources (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  -- Paths, sizes and times of the input files, format and mapping: an import of the same again needs no work.
  fingerprint TEXT NOT NULL,
  record TEXT NOT NULL CHECK (json_valid(record)),
  imported_at INTEGER NOT NULL
) STRICT;
CREATE INDEX sources_by_fingerprint ON sources (fingerprint);

CREATE TABLE mixes (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  dir TEXT NOT NULL UNIQUE,
  record TEXT NOT NULL CHECK (json_valid(record)),
  built_at INTEGER NOT NULL
) STRICT;

CREATE TABLE models (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  dir TEXT NOT NULL,
  record TEXT NOT NULL CHECK (json_valid(record)),
  added_at INTEGER NOT NULL
) STRICT;

-- Hashes of files and model folders, good for as long as names, sizes and times stay.
CREATE TABLE content_hashes (
  path TEXT PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN
    ('queued', 'running', 'paused', 'stopping', 'completed', 'stopped', 'failed', 'interrupted')),
  phase TEXT,
  config TEXT NOT NULL CHECK (json_valid(config)),
  -- run.lock.json: what the configuration was resolved to.
  lock TEXT NOT NULL CHECK (json_valid(lock)),
  dir TEXT NOT NULL,
  step INTEGER NOT NULL DEFAULT 0,
  total_steps INTEGER,
  loss REAL,
  tokens_per_second REAL,
  elapsed_ms REAL NOT NULL DEFAULT 0,
  last_checkpoint TEXT,
  step_zero_difference REAL,
  quantization_difference REAL,
  error TEXT CHECK (json_valid(error)),
  crash TEXT CHECK (json_valid(crash)),
  note TEXT NOT NULL DEFAULT '',
  attempt INTEGER NOT NULL DEFAULT 0,
  -- How much of metrics.jsonl the tables below hold.
  metrics_bytes INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at INTEGER
) STRICT;

-- One row a step, narrow, so that a chart reads little. NULL where a number was not finite.
CREATE TABLE steps (
  run_key INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  epoch REAL NOT NULL,
  loss REAL,
  balance_loss REAL,
  balance_grad_norm REAL,
  lr REAL NOT NULL,
  grad_norm REAL,
  skipped INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  target_tokens INTEGER NOT NULL,
  padding_tokens INTEGER NOT NULL,
  step_ms REAL NOT NULL,
  tokens_per_second REAL NOT NULL,
  memory_bytes INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (run_key, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE step_sources (
  run_key INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  source TEXT NOT NULL,
  step INTEGER NOT NULL,
  loss REAL,
  target_tokens INTEGER NOT NULL,
  PRIMARY KEY (run_key, source, step)
) STRICT, WITHOUT ROWID;

-- Little-endian arrays: shares (layers x experts) and row losses f32, row numbers i32.
CREATE TABLE step_arrays (
  run_key INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step INTEGER NOT NULL,
  expert_shares BLOB NOT NULL,
  row_numbers BLOB NOT NULL,
  row_losses BLOB NOT NULL,
  PRIMARY KEY (run_key, step)
) STRICT;

CREATE TABLE evaluations (
  run_key INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  step INTEGER NOT NULL,
  loss REAL,
  by_source TEXT NOT NULL CHECK (json_valid(by_source)),
  PRIMARY KEY (run_key, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE threads (
  id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  model TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE messages (
  id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
  n INTEGER NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
  content TEXT NOT NULL,
  model TEXT,
  answer TEXT CHECK (json_valid(answer)),
  created_at INTEGER NOT NULL,
  UNIQUE (thread_id, n)
) STRICT;
