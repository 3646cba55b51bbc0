-- What was exported from runs, and what the parity gate found: export.json of each, with its place.
CREATE TABLE exports (
  id TEXT PRIMARY KEY,
  dir TEXT NOT NULL UNIQUE,
  record TEXT NOT NULL CHECK (json_valid(record)),
  created_at INTEGER NOT NULL
) STRICT;
