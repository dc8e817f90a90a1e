CREATE TABLE IF NOT EXISTS jobs (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text UNIQUE NOT NULL,
  seconds real NOT NULL,
  -- In the same row that is locked meanwhile: who has skipped it, or waited for it, sees that it is done.
  done timestamptz
);
CREATE INDEX IF NOT EXISTS jobs_to_do ON jobs (id) WHERE done IS NULL;

-- One row for each time that a job was begun, whatever became of it.
CREATE TABLE IF NOT EXISTS runs (job integer NOT NULL, begun timestamptz NOT NULL DEFAULT clock_timestamp());

-- What a job leaves behind, in the transaction in which it is done.
CREATE TABLE IF NOT EXISTS results (job integer NOT NULL, made timestamptz NOT NULL DEFAULT clock_timestamp());
