-- What the host itself must know between one life and the next, by name: when held runs start.
CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL CHECK (json_valid(value))
) STRICT, WITHOUT ROWID;

-- Runs that wait to be started, or for a time: they wait on when a host ends and another opens the home.
CREATE TABLE held_runs (
  run_key INTEGER PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
  place INTEGER NOT NULL
) STRICT;
