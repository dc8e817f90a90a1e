#!/usr/bin/env bash
# Manages the service: through systemd where its unit is installed, else as a background process with a PID file.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: manage-service.sh [--guard NAME] COMMAND

  start                  start it; comes back when it accepts requests
  stop                   stop it and show the drain; exits as the service did (0 all completed, 1 requests were cut)
  restart                stop, then start
  reload                 new settings and code without losing a request; exits 1 when they were refused
  status                 state, what is in flight, the last log lines; exits 0 when it runs, else 3
  logs [-f] [-n LINES]   the log; -f follows it
  unlatch [--reason R]   let it start again after an emergency shutdown
  install [--offline]    as root: copy the built service to /opt/master-agent, make the user, the units, the
                         environment file (kept if there is one) and logrotate's. Safe to run again, for an update too.
                         --offline takes the dependencies from this checkout instead of the registry
  uninstall [--purge]    as root: stop it and remove what install has put there; --purge removes settings, state,
                         audit log and user too
  help                   this

  --guard NAME           each of these for the program NAME behind the gate, an instance of master-agent-guard@.service that
                         runs in /opt/NAME and has its settings in /etc/master-agent/NAME.env. install makes that file
                         beside what it installs otherwise; uninstall leaves the service and other programs alone. Needs
                         systemd

Where the unit master-agent.service is installed all goes through systemctl (start, stop, restart and reload as root).
Elsewhere the service is a background process of this directory: its PID file is var/master-agent.pid, its log
logs/app.log.

variables: PID_FILE, LOG_FILE, START_WAIT (90: seconds until a start has failed), MANAGE_WITH=systemd or pid-file,
           NODE (the program), PREFIX (/opt/master-agent), DESTDIR (puts all that is installed below it, for packages)
TEXT
}

readonly SERVICE=master-agent.service SOCKET=master-agent.socket TEMPLATE=master-agent-guard@.service ACCOUNT=master-agent
HOME_DIR=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
readonly HOME_DIR
readonly DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/opt/master-agent} START_WAIT=${START_WAIT:-90}
readonly ETC=/etc/master-agent UNITS=/etc/systemd/system LOGROTATE=/etc/logrotate.d
# Of the service, or of the program that --guard names.
GUARD='' UNIT=$SERVICE STATE=/var/lib/master-agent SETTINGS=$ETC/master-agent.env CREDENTIAL=/etc/credstore/master-agent.admin-token

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
fail() {
  warn "manage-service.sh: $1"
  exit "${2:-1}"
}

# --- what both ways need ------------------------------------------------------------------------------------------

find_node() {
  local node=${NODE:-}
  [ -n "$node" ] || node=$(command -v node || command -v /usr/bin/node) ||
    fail 'there is no node on the PATH. Install Node.js 20.19 or later, or set NODE to its path'
  local version major minor
  version=$("$node" --version 2>/dev/null) || fail "NODE: want a Node.js program, got \"$node\""
  IFS=. read -r major minor _ <<<"${version#v}"
  if [ "$major" -lt 20 ] || { [ "$major" -eq 20 ] && [ "$minor" -lt 19 ]; }; then
    fail "want Node.js 20.19 or later, got $version at $node"
  fi
  command -v "$node"
}

need_built() {
  [ -f "$HOME_DIR/dist/main.js" ] || fail "the service is not built: run \"make build\" in $HOME_DIR first"
}

need_root() {
  [ "$(id -u)" -eq 0 ] || fail "$1 needs root: sudo $ME $1"
}

# The command line, for what a person is told to run.
ME=$0

choose_guard() {
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "--guard: want a name of letters, digits, dots, dashes and underscores, got \"$1\"" 78
  [ "$1" != master-agent ] || fail '--guard: want another name than master-agent: the service has its settings there' 78
  GUARD=$1 UNIT=master-agent-guard@$1.service STATE=/var/lib/master-agent-$1 SETTINGS=$ETC/$1.env
  CREDENTIAL=/etc/credstore/master-agent.$1.admin-token ME="$0 --guard $1"
}

is_systemd() {
  if [ -n "$GUARD" ]; then
    if [ "${MANAGE_WITH:-systemd}" != systemd ] || [ ! -d /run/systemd/system ]; then
      fail "--guard needs systemd. Where there is none: node dist/main.js guard -- COMMAND"
    fi
    systemctl cat "$UNIT" >/dev/null 2>&1 || fail "$TEMPLATE is not installed. Install it: sudo $ME install"
    return 0
  fi
  case ${MANAGE_WITH:-} in
    systemd) return 0 ;;
    pid-file) return 1 ;;
    '') ;;
    *) fail "MANAGE_WITH: want systemd or pid-file, got \"$MANAGE_WITH\"" 78 ;;
  esac
  [ -d /run/systemd/system ] && systemctl cat "$UNIT" >/dev/null 2>&1
}

is_count() { [[ $1 =~ ^[0-9]+$ ]]; }

# --- through systemd ----------------------------------------------------------------------------------------------

property() { systemctl show --property="$1" --value "$UNIT"; }

is_socket_on() { [ -z "$GUARD" ] && systemctl is-active --quiet "$SOCKET"; }

tell_failure() {
  warn "$1: $(property Result), exit $(property ExecMainStatus). The end of its log:"
  journalctl --unit="$UNIT" --no-pager --lines=10 --output=cat >&2 || true
  case $(property ExecMainStatus) in
    75) warn "It is latched by an emergency shutdown. When it may start again: $ME unlatch --reason '…', then $ME start" ;;
    78) warn "Its settings are in $SETTINGS" ;;
  esac
}

systemd_start() {
  need_root start
  if ! systemctl start "$UNIT"; then
    tell_failure 'The service did not start'
    exit 1
  fi
  say "Started: $(property StatusText)"
}

systemd_stop() {
  need_root stop
  local units=("$UNIT") job shown='' text
  # A socket that is left open starts the service again with the next connection.
  if is_socket_on; then units=("$SOCKET" "$UNIT"); fi
  case $(property ActiveState):${#units[@]} in
    inactive:1 | failed:1)
      say 'Nothing to stop: the service does not run'
      return 0
      ;;
  esac
  systemctl stop "${units[@]}" &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    text=$(property StatusText)
    if [ "$(property ActiveState)" = deactivating ] && [ -n "$text" ] && [ "$text" != "$shown" ]; then
      say "$text"
      shown=$text
    fi
    sleep 0.2
  done
  wait "$job" || fail "systemctl stop failed: see systemctl status $UNIT"
  if [ "$(property Result)" != success ]; then
    tell_failure 'The service stopped, but not well'
    text=$(property ExecMainStatus)
    return "$((text == 0 ? 1 : text))"
  fi
  say 'Stopped: all in flight completed'
}

systemd_restart() {
  need_root restart
  if ! systemctl restart "$UNIT"; then
    tell_failure 'The service did not start again'
    exit 1
  fi
  say "Restarted: $(property StatusText)"
}

systemd_reload() {
  need_root reload
  [ "$(property ActiveState)" = active ] || fail "there is nothing to reload: the service is $(property ActiveState). Start it: $ME start"
  if ! systemctl reload "$UNIT"; then
    warn 'The reload was refused, the old version goes on serving. The end of the log:'
    journalctl --unit="$UNIT" --no-pager --lines=5 --output=cat >&2 || true
    exit 1
  fi
  say "Reloaded: $(property StatusText)"
}

systemd_status() {
  local code=0
  systemctl status --no-pager --full --lines=0 "$UNIT" || code=$?
  if is_socket_on; then say "$SOCKET: listening"; fi
  say
  installed_command status 2>&1 || true
  say
  say 'Last lines of the log:'
  journalctl --unit="$UNIT" --no-pager --lines=10 || true
  return "$code"
}

# A command of the installed service, as the service's own user where that can be.
installed_command() {
  local node as=() variables=("STATE_DIR=$STATE")
  node=$(find_node)
  if [ "$(id -u)" -eq 0 ] && command -v runuser >/dev/null; then as=(runuser -u "$ACCOUNT" --); fi
  if [ -r "$SETTINGS" ]; then variables+=("SETTINGS_FILE=$SETTINGS"); fi
  (
    cd "$PREFIX"
    "${as[@]}" env "${variables[@]}" "$node" dist/main.js "$@"
  )
}

# --- with a PID file ----------------------------------------------------------------------------------------------

pid_file_mode() {
  NODE=$(find_node)
  need_built
  export PID_FILE=${PID_FILE:-$HOME_DIR/var/master-agent.pid}
  LOG_FILE=${LOG_FILE:-$HOME_DIR/logs/app.log}
  is_count "$START_WAIT" || fail "START_WAIT: want a whole number of seconds, got \"$START_WAIT\"" 78
  # `.env` and what it names by relative paths is there.
  cd "$HOME_DIR"
}

# The process that the PID file names, if it lives.
running_pid() {
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) || return 1
  is_count "$pid" && kill -0 "$pid" 2>/dev/null || return 1
  # Somebody else may have got the number since.
  if [ -r "/proc/$pid/cmdline" ] && ! tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q 'main\.js'; then return 1; fi
  say "$pid"
}

pid_start() {
  local pid code=0 from=0 until detached=()
  if pid=$(running_pid); then
    say "Already running: process $pid"
    return 0
  fi
  mkdir -p -- "$(dirname -- "$PID_FILE")" "$(dirname -- "$LOG_FILE")"
  [ ! -f "$LOG_FILE" ] || from=$(wc -c <"$LOG_FILE")
  # A session of its own where there is setsid: Ctrl-C on this terminal is not meant for it.
  command -v setsid >/dev/null && detached=(setsid)
  "${detached[@]}" nohup "$NODE" dist/main.js serve >>"$LOG_FILE" 2>&1 </dev/null &
  pid=$!
  until=$((SECONDS + START_WAIT))
  until is_serving "$pid" "$from"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      wait "$pid" || code=$?
      warn "The service did not start (exit $code). From its log $LOG_FILE:"
      tail -c "+$((from + 1))" "$LOG_FILE" | tail -n 10 >&2
      if [ "$code" -eq 75 ]; then warn "When it may start again: $0 unlatch --reason '…', then $0 start"; fi
      exit "$((code == 0 ? 1 : code))"
    fi
    if [ "$SECONDS" -ge "$until" ]; then
      kill -TERM "$pid" 2>/dev/null || true
      fail "the service was not ready after $START_WAIT s and was told to stop. See its log: $LOG_FILE"
    fi
    sleep 0.1
  done
  say "Started: process $pid, log $LOG_FILE"
}

# Its log says so; or, when LOG_LEVEL keeps that line out, its ops server.
is_serving() {
  [ "$(cat "$PID_FILE" 2>/dev/null)" = "$1" ] || return 1
  # Read to its end: grep -q would end tail by a signal, which counts as a failure here.
  tail -c "+$(($2 + 1))" "$LOG_FILE" | grep 'Service state: RUNNING' >/dev/null && return 0
  "$NODE" dist/main.js status --json 2>/dev/null | grep "\"pid\":$1,.*\"state\":\"running\"" >/dev/null
}

pid_stop() { "$NODE" dist/main.js stop; }

pid_restart() {
  local code=0
  pid_stop || code=$?
  if [ "$code" -ne 0 ]; then warn "The stop ended with $code"; fi
  if running_pid >/dev/null; then fail 'the old process is still there: not started again'; fi
  pid_start
}

pid_reload() {
  running_pid >/dev/null || fail "there is nothing to reload: the service does not run. Start it: $0 start"
  "$NODE" dist/main.js reload
}

pid_status() {
  local pid code=0
  if pid=$(running_pid); then
    say "Running: process $pid (PID file $PID_FILE)"
    "$NODE" dist/main.js status 2>&1 || true
  else
    say "Not running (PID file $PID_FILE)"
    code=3
  fi
  if [ -f "$LOG_FILE" ]; then
    say
    say "Last lines of $LOG_FILE:"
    tail -n 10 "$LOG_FILE"
  fi
  return "$code"
}

# --- logs, unlatch ------------------------------------------------------------------------------------------------

show_logs() {
  local follow=() lines=100
  while [ $# -gt 0 ]; do
    case $1 in
      -f) follow=(-f) ;;
      -n)
        shift
        is_count "${1:-}" || fail "logs -n: want a number of lines, got \"${1:-}\"" 78
        lines=$1
        ;;
      *) fail "logs: want -f or -n LINES, got \"$1\"" 78 ;;
    esac
    shift
  done
  if is_systemd; then
    exec journalctl --unit="$UNIT" --lines="$lines" --no-pager "${follow[@]}"
  fi
  pid_file_mode
  [ -f "$LOG_FILE" ] || fail "there is no log yet: $LOG_FILE"
  exec tail -n "$lines" "${follow[@]}" "$LOG_FILE"
}

unlatch() {
  if is_systemd; then
    need_root unlatch
    installed_command unlatch "$@"
  else
    pid_file_mode
    "$NODE" dist/main.js unlatch "$@"
  fi
}

# --- install ------------------------------------------------------------------------------------------------------

install_service() {
  local offline=
  case ${1:-} in
    --offline) offline=yes ;;
    '') ;;
    *) fail "install: want --offline or nothing, got \"$1\"" 78 ;;
  esac
  [ -n "$DESTDIR" ] || need_root install
  local node
  node=$(readlink -f "$(find_node)")
  case $node in
    /home/* | /root/*) fail "the service has no access to $node (ProtectHome). Install Node.js for all users, or set NODE" ;;
  esac
  if [ "$HOME_DIR" != "$(readlink -m "$DESTDIR$PREFIX")" ]; then
    [ -f "$HOME_DIR/dist/main.js" ] || build
    install_program "$offline"
  elif [ -z "$GUARD" ]; then
    fail "this is the installed copy in $PREFIX: run install from a checkout"
  fi
  [ -n "$DESTDIR" ] || make_account
  install_settings
  install_units "$node"
  if [ -n "$DESTDIR" ]; then
    say "Installed below $DESTDIR"
    return
  fi
  say "Installed in $PREFIX. Settings: $SETTINGS. An administrator's token, if wanted: $CREDENTIAL (mode 0600)"
  [ -z "$GUARD" ] || [ -d "/opt/$GUARD" ] || say "There is no /opt/$GUARD yet, which the program runs in"
  if [ ! -d /run/systemd/system ]; then
    say 'systemd does not run here: start it after the next boot'
    return
  fi
  systemctl daemon-reload
  if [ "$(property ActiveState)" = active ]; then
    say "The service runs with the version before this one. New code and settings: $ME reload. All of it: $ME restart"
  elif [ -n "$GUARD" ]; then
    say "Set GUARD_COMMAND and PORT there, then start it: systemctl enable --now $UNIT"
  else
    say "Start it: systemctl enable --now $UNIT. No refused connection during restarts: systemctl enable --now $SOCKET first"
  fi
}

build() {
  command -v npm >/dev/null || fail "the service is not built and there is no npm to do it: run \"make build\" in $HOME_DIR"
  say "Not built yet: building in $HOME_DIR"
  (cd "$HOME_DIR" && { [ -d node_modules ] || npm ci --no-audit --no-fund; } && npm run --silent build) ||
    fail "the build failed: run \"make build\" in $HOME_DIR"
}

# Made whole beside the old version, then put in its place: what runs meanwhile finds all of one version.
install_program() {
  local target=$DESTDIR$PREFIX stage=$DESTDIR$PREFIX/.new part
  rm -rf "$stage"
  install -d -m 0755 "$target" "$stage"
  cp -R "$HOME_DIR/dist" "$HOME_DIR/package.json" "$stage/"
  for part in package-lock.json README.md LICENSE CHANGELOG.md .env.example deployment; do
    [ ! -e "$HOME_DIR/$part" ] || cp -R "$HOME_DIR/$part" "$stage/"
  done
  install_dependencies "$stage" "$1"
  chmod -R u=rwX,go=rX "$stage"
  [ "$(id -u)" -ne 0 ] || chown -R 0:0 "$stage"
  rm -rf "$target/.old"
  mkdir "$target/.old"
  for part in "$stage"/* "$stage"/.[!.]*; do
    part=${part##*/}
    [ -e "$stage/$part" ] || continue
    [ ! -e "$target/$part" ] || mv "$target/$part" "$target/.old/"
    mv "$stage/$part" "$target/"
  done
  rm -rf "$stage" "$target/.old"
}

install_dependencies() {
  local stage=$1 offline=$2 said
  if [ -z "$offline" ]; then
    command -v npm >/dev/null || fail 'install needs npm. Install it, or use install --offline in a checkout with node_modules'
    said=$(cd "$stage" && npm ci --omit=dev --no-audit --no-fund --fetch-retries=0 --loglevel=error 2>&1) && return
    warn "$(head -n 5 <<<"$said")"
    warn 'npm ci did not work: taking the dependencies from the checkout instead'
    rm -rf "$stage/node_modules"
  fi
  [ -d "$HOME_DIR/node_modules" ] || fail "there is no node_modules in $HOME_DIR: run \"npm ci\" there first"
  copy_dependencies "$stage"
}

# What npm ls counts as production's, from the checkout's node_modules.
copy_dependencies() {
  local stage=$1 path
  command -v npm >/dev/null || fail 'install needs npm to tell which dependencies are production ones'
  while IFS= read -r path; do
    path=${path#"$HOME_DIR"/}
    [[ $path == node_modules/* && ! -e $stage/$path ]] || continue
    mkdir -p "$stage/$(dirname "$path")"
    cp -RL "$HOME_DIR/$path" "$stage/$path"
  done < <(cd "$HOME_DIR" && npm ls --omit=dev --all --parseable 2>/dev/null)
  [ -d "$stage/node_modules/pino" ] || fail "the dependencies in $HOME_DIR/node_modules are not complete: run \"npm ci\" there"
}

make_account() {
  if id "$ACCOUNT" >/dev/null 2>&1; then return; fi
  if command -v useradd >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$ACCOUNT"
  elif command -v adduser >/dev/null; then
    adduser -S -D -H -h /nonexistent -s /sbin/nologin "$ACCOUNT"
  else
    fail "there is no useradd: make a system user and a group \"$ACCOUNT\", then run install again"
  fi
  say "User $ACCOUNT made"
}

install_settings() {
  local not='STATE_DIR|PID_FILE|LOG_FORMAT|STOP_BUDGET' workers=1
  if [ -n "$GUARD" ]; then not="$not|APP|GUARD_COMMAND" workers=0; fi
  install -d -m 0750 "$DESTDIR$ETC"
  if [ -e "$DESTDIR$SETTINGS" ]; then
    say "$SETTINGS is kept as it is"
  else
    # systemd takes a comment behind a value for a part of it, so each goes on a line of its own.
    {
      say "# Settings of $UNIT, one NAME=value a line. After a change: systemctl reload ${UNIT%.service}"
      say '# Those that stand here without a value of yours are the defaults.'
      if [ -n "$GUARD" ]; then
        say
        say "# The program, as a JSON array of its words, found from /opt/$GUARD. Each has a PORT and an OPS_PORT of its own."
        say "# GUARD_COMMAND='[\"./server\",\"--socket\",\"{socket}\"]'"
      fi
      sed -nE -e "/^(# )?($not)=/d" -e "s/^WORKERS=0/WORKERS=$workers/" \
        -e 's/^(# )?([A-Z_]+)=([^ ]*) *# (.*)$/\n# \4\n# \2=\3/p' "$HOME_DIR/.env.example"
    } >"$DESTDIR$SETTINGS"
    chmod 0640 "$DESTDIR$SETTINGS"
  fi
  # The service reads them again itself, at a reload.
  [ -n "$DESTDIR" ] || chgrp "$ACCOUNT" "$ETC" "$SETTINGS"
}

install_units() {
  local node=$1 unit
  install -d "$DESTDIR$UNITS" "$DESTDIR$LOGROTATE"
  for unit in "$SERVICE" "$SOCKET" "$TEMPLATE"; do
    sed -e "s|/usr/bin/node|$node|g" -e "s|/opt/master-agent|$PREFIX|g" "$HOME_DIR/deployment/$unit" >"$DESTDIR$UNITS/$unit"
    chmod 0644 "$DESTDIR$UNITS/$unit"
  done
  install -m 0644 "$HOME_DIR/deployment/logrotate.conf" "$DESTDIR$LOGROTATE/master-agent"
}

uninstall_service() {
  local purge='' target=$DESTDIR$PREFIX part
  case ${1:-} in
    --purge) purge=yes ;;
    '') ;;
    *) fail "uninstall: want --purge or nothing, got \"$1\"" 78 ;;
  esac
  [ -n "$DESTDIR" ] || need_root uninstall
  if [ -n "$GUARD" ]; then
    uninstall_guard "$purge"
    return
  fi
  if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    for part in "$SOCKET" "$UNIT"; do
      if systemctl cat "$part" >/dev/null 2>&1; then systemctl disable --now "$part" || true; fi
    done
    systemctl stop "${TEMPLATE/@/@*}" || true
    if systemctl cat "$TEMPLATE" >/dev/null 2>&1; then systemctl disable "$TEMPLATE" || true; fi
  fi
  rm -f "$DESTDIR$UNITS/$SERVICE" "$DESTDIR$UNITS/$SOCKET" "$DESTDIR$UNITS/$TEMPLATE" "$DESTDIR$LOGROTATE/master-agent"
  for part in dist node_modules package.json package-lock.json README.md LICENSE CHANGELOG.md .env.example deployment .new .old; do
    rm -rf "${target:?}/$part"
  done
  # An application of its own in there stays.
  rmdir "$target" 2>/dev/null || true
  if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed "$UNIT" "$SOCKET" "${TEMPLATE/@/@*}" 2>/dev/null || true
  fi
  if [ -n "$purge" ]; then
    for part in "$DESTDIR$ETC"/*.env; do
      part=$(basename "$part" .env)
      rm -rf "$DESTDIR$STATE-$part" "$DESTDIR/etc/credstore/master-agent.$part.admin-token"
    done
    rm -rf "$DESTDIR$ETC" "$DESTDIR$STATE" "$DESTDIR$CREDENTIAL"
    if [ -z "$DESTDIR" ] && id "$ACCOUNT" >/dev/null 2>&1; then userdel "$ACCOUNT"; fi
    say 'Uninstalled, with settings, state, audit log and user'
  else
    say "Uninstalled. Kept: settings in $ETC, state and audit log in $STATE, the user $ACCOUNT (uninstall --purge removes them)"
  fi
}

# The service, and other programs behind its gate, stay.
uninstall_guard() {
  if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && systemctl cat "$UNIT" >/dev/null 2>&1; then
    systemctl disable --now "$UNIT" || true
    systemctl reset-failed "$UNIT" 2>/dev/null || true
  fi
  if [ -n "$1" ]; then
    rm -rf "$DESTDIR$SETTINGS" "$DESTDIR$STATE" "$DESTDIR$CREDENTIAL"
    say "Uninstalled $GUARD, with settings, state and audit log"
  else
    say "Uninstalled $GUARD. Kept: settings in $SETTINGS, state and audit log in $STATE (uninstall --purge removes them)"
  fi
}

# --- the command line ---------------------------------------------------------------------------------------------

if [ "${1:-}" = --guard ]; then
  choose_guard "${2:-}"
  shift 2
fi
command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
  start | stop | restart | reload | status)
    [ $# -eq 0 ] || fail "$command: want nothing behind it, got \"$*\"" 78
    if is_systemd; then
      "systemd_$command"
    else
      pid_file_mode
      "pid_$command"
    fi
    ;;
  logs) show_logs "$@" ;;
  unlatch) unlatch "$@" ;;
  install) install_service "$@" ;;
  uninstall) uninstall_service "$@" ;;
  help | --help | -h) usage ;;
  *)
    usage >&2
    fail "unknown command \"$command\"" 78
    ;;
esac
