-- Every 16, 256, 4096 and 65,536 steps of a metric as one row, so that a curve of a million steps is read in as few rows
-- as it has pixels and no spike is lost. `low` and `high` are of finite values, NULL where there was none; `value` is the last
-- step's, NULL where that was not finite.
CREATE TABLE series_levels (
  run_key INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
  metric TEXT NOT NULL,
  level INTEGER NOT NULL,
  bucket INTEGER NOT NULL,
  step INTEGER NOT NULL,
  value REAL,
  low REAL,
  high REAL,
  non_finite INTEGER NOT NULL,
  PRIMARY KEY (run_key, metric, level, bucket)
) STRICT, WITHOUT ROWID;

-- What a run had trained on, and how long its steps had taken, up to and with a step: curves by tokens and by time.
ALTER TABLE steps ADD COLUMN tokens_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN trained_ms REAL NOT NULL DEFAULT 0;
UPDATE steps SET tokens_seen = sums.tokens_seen, trained_ms = sums.trained_ms
  FROM (SELECT run_key, step,
          sum(tokens) OVER (PARTITION BY run_key ORDER BY step) AS tokens_seen,
          sum(step_ms) OVER (PARTITION BY run_key ORDER BY step) AS trained_ms
        FROM steps) AS sums
  WHERE sums.run_key = steps.run_key AND sums.step = steps.step;
