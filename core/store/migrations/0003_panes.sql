-- The thread beside whose answers a pane's stand; it goes with it.
ALTER TABLE threads ADD COLUMN parent TEXT REFERENCES threads (id) ON DELETE CASCADE;
CREATE INDEX threads_by_parent ON threads (parent);
