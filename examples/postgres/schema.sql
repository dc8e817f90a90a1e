CREATE TABLE IF NOT EXISTS accounts (
  id integer PRIMARY KEY,
  balance bigint NOT NULL CONSTRAINT covered CHECK (balance >= 0)
);

-- One row for each transfer that was made. The key comes from the client, and makes it safe to ask again.
CREATE TABLE IF NOT EXISTS transfers (
  key text PRIMARY KEY,
  payer integer NOT NULL REFERENCES accounts,
  payee integer NOT NULL REFERENCES accounts,
  amount integer NOT NULL CHECK (amount > 0),
  xid xid8 NOT NULL DEFAULT pg_current_xact_id()
);

INSERT INTO accounts SELECT id, 1000000 FROM generate_series(1, 10) AS id ON CONFLICT DO NOTHING;
