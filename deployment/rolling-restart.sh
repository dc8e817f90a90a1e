#!/usr/bin/env bash
# Restarts the replicas one after the other, each only while all the others serve.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: rolling-restart.sh --restart COMMAND NAME=URL NAME=URL…

  --restart COMMAND   restarts one replica; run by sh with the replica's name as $1
  --settle SECONDS    wait between two replicas until the load balancer has seen the one that came back (default 3)
  --wait SECONDS      how long a replica may take to be ready again (default 90)
  NAME=URL            a replica and its ops server

  rolling-restart.sh --restart 'ssh "$1" sudo systemctl restart master-agent' \
    web1=http://10.0.0.11:8001 web2=http://10.0.0.12:8001

It begins only when all replicas are ready, and ends with 1 at the first that does not come back; the rest then serve on.
TEXT
}

fail() {
  printf 'rolling-restart.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

is_count() { [[ $1 =~ ^[0-9]+(\.[0-9]+)?$ ]]; }

ask() { curl --silent --fail --max-time 2 "$1"; }

# Whoever is restarted is somebody else afterwards: the time at which it began to run.
running_since() {
  ask "$1/readyz" >/dev/null && ask "$1/status" | sed -n 's/.*"state":"running","since":"\([^"]*\)".*/\1/p'
}

restart='' settle=3 patience=90 replicas=()
while [ $# -gt 0 ]; do
  case $1 in
    --restart | --settle | --wait)
      [ $# -ge 2 ] || fail "$1: want a value behind it" 78
      case $1 in
        --restart) restart=$2 ;;
        --settle) settle=$2 ;;
        --wait) patience=$2 ;;
      esac
      shift
      ;;
    -h | --help)
      usage
      exit
      ;;
    ?*=http*) replicas+=("$1") ;;
    *) fail "want NAME=URL, got \"$1\"" 78 ;;
  esac
  shift
done
[ -n "$restart" ] || fail '--restart: want the command that restarts one replica, got nothing' 78
is_count "$settle" || fail "--settle: want a number of seconds, got \"$settle\"" 78
is_count "$patience" || fail "--wait: want a number of seconds, got \"$patience\"" 78
[ "${#replicas[@]}" -ge 2 ] || fail "want two replicas or more, got ${#replicas[@]}: one alone cannot be restarted unseen" 78

for turn in "${!replicas[@]}"; do
  # What is taken away must be there elsewhere, before each one.
  for replica in "${replicas[@]}"; do
    ask "${replica#*=}/readyz" >/dev/null || fail "${replica%%=*} is not ready: nothing more is restarted"
  done
  name=${replicas[turn]%%=*} ops=${replicas[turn]#*=}
  before=$(running_since "$ops")
  printf 'Restarting %s\n' "$name"
  sh -c "$restart" rolling-restart "$name" || fail "$name: the command that restarts it failed ($?)"
  until=$((SECONDS + ${patience%.*}))
  while now=$(running_since "$ops") || now=''; [ -z "$now" ] || [ "$now" = "$before" ]; do
    [ "$SECONDS" -lt "$until" ] || fail "$name is not ready again after $patience s: see its log. The rest serves on"
    sleep 0.2
  done
  printf '%s runs since %s; its last stop: %s\n' "$name" "$now" \
    "$(ask "$ops/metrics" | sed -n 's/^master_agent_last_shutdown_cut_requests \(.*\)/\1 requests cut/p')"
  if [ "$turn" -lt $((${#replicas[@]} - 1)) ]; then sleep "$settle"; fi
done
printf 'All %s replicas run anew\n' "${#replicas[@]}"
