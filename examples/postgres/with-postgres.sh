#!/usr/bin/env bash
# Runs a command beside a PostgreSQL of its own, in a temporary directory that is removed when the command ends.
# The command finds it by PGHOST and so on; `$PGCTL restart` restarts it. Anybody on this machine can connect to it.
set -euo pipefail

[ $# -gt 0 ] || { echo 'usage: with-postgres.sh COMMAND [ARG…]' >&2; exit 2; }

# Debian does not put them on the path.
for dir in /usr/lib/postgresql/*/bin; do PATH=$dir:$PATH; done
command -v initdb >/dev/null || {
  echo 'There is no initdb here: apt-get install -y --no-install-recommends postgresql' >&2
  exit 1
}

home=$(mktemp -d "${TMPDIR:-/tmp}/postgres-XXXXXX")
PGCTL="pg_ctl --silent --wait --pgdata=$home/data --log=$home/log"
as=''
if [ "$(id -u)" -eq 0 ]; then
  # It refuses to run as root. Debian's package makes this user.
  as='setpriv --reuid=postgres --regid=postgres --clear-groups'
  PGCTL="$as $PGCTL"
  chown postgres "$home"
fi
trap '$PGCTL stop --mode=immediate || true; rm -rf "$home"' EXIT
# Ctrl-C is for the command, which comes to its end; then this does.
trap : INT TERM

PGPORT=$(node -p 'const server = require("net").createServer().listen(0), { port } = server.address(); server.close(); port')
export PATH PGCTL PGHOST=127.0.0.1 PGPORT PGUSER=app PGDATABASE=postgres
(
  cd "$home"
  $as initdb --pgdata=data --username="$PGUSER" --auth=trust --encoding=UTF8 --no-locale --no-sync >initdb.log
  $PGCTL start --options="-c listen_addresses=127.0.0.1 -c port=$PGPORT -c unix_socket_directories=$home"
)

status=0
"$@" || status=$?
exit "$status"
