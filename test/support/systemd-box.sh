#!/usr/bin/env bash
# Boots a throw-away systemd beside the one of this machine, if that has one: a container on an overlay of /, with a
# network of its own. Nothing that happens in it stays.
#
# usage: systemd-box.sh CHECKOUT
#
# When it has booted a line tells the process id of its systemd: programs are run in it with
# `nsenter --target PID --all`. CHECKOUT is /checkout in there, to be read. The box goes when standard input ends,
# so also when the test that holds the other end is killed. Exits 77, with the reason, where none can boot.
set -euo pipefail

cannot() {
  echo "$1"
  exit 77
}

[ "$(id -u)" -eq 0 ] || cannot 'booting a systemd needs root'
command -v systemd-nspawn >/dev/null || cannot 'there is no systemd-nspawn (package systemd-container)'

# The mounts are made in a name space of our own: the kernel takes them away with the last process in it.
[ -n "${IN_A_NAMESPACE:-}" ] || IN_A_NAMESPACE=yes exec unshare --mount --propagation private "$0" "$@"

checkout=$(readlink -f "$1")
dir=$(mktemp -d "${TMPDIR:-/tmp}/master-agent-box.XXXXXX")
nspawn='' leader='' cgroups=()

clean_up() {
  trap '' INT TERM
  # What is thrown away needs no orderly end.
  [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null || true
  if [ -n "$nspawn" ]; then
    kill -TERM "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
  fi
  for cgroup in "${cgroups[@]}"; do find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  umount --recursive --lazy "$dir" 2>/dev/null || true
  rm -rf --one-file-system "$dir"
}
trap clean_up EXIT
trap 'exit 143' TERM INT

mount -t tmpfs -o mode=0755 tmpfs "$dir" || cannot 'no file system can be mounted here'
mkdir "$dir"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root" ||
  cannot 'no overlay can be mounted on / here'

# Just enough: the journal, D-Bus, and whatever a test starts.
cat >"$dir/root/etc/systemd/system/box.target" <<'UNIT'
[Unit]
Description=A box for tests
Requires=sysinit.target sockets.target
Wants=systemd-journald.service
After=sysinit.target sockets.target
AllowIsolate=yes
UNIT
: >"$dir/root/etc/fstab"
rm -f "$dir/root/etc/machine-id"
tr -d - </proc/sys/kernel/random/uuid >"$dir/root/etc/machine-id"

# What belongs to a machine and not to a test, or takes long.
for unit in docker.socket podman.socket systemd-{timesyncd,pstore,logind,random-seed,update-utmp,hwdb-update,firstboot}.service \
  systemd-{journal-catalog-update,update-done,journal-flush,boot-system-token,machine-id-commit,sysusers}.service \
  ldconfig.service e2scrub_reap.service; do
  ln -sf /dev/null "$dir/root/etc/systemd/system/$unit"
done

# node_modules may be a link to somewhere else: it is brought along.
modules=()
[ ! -L "$checkout/node_modules" ] || modules=(--bind-ro="$(readlink -f "$checkout/node_modules"):/checkout/node_modules")

# Two systemds in one cgroup would take away each other's, and kill what is in it. Version 1, both, and 2.
for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  if [ -e "$root/cgroup.procs" ] && mkdir "$root/box-$$" 2>/dev/null; then cgroups+=("$root/box-$$"); fi
done

(
  for cgroup in "${cgroups[@]}"; do echo "$BASHPID" >"$cgroup/cgroup.procs"; done
  exec systemd-nspawn --quiet --directory="$dir/root" --machine="box-$$" --register=no --keep-unit --private-network \
    --console=pipe --link-journal=no --resolv-conf=off --timezone=off \
    --bind-ro="$checkout:/checkout" "${modules[@]}" \
    --boot systemd.unit=box.target systemd.show_status=no quiet
) </dev/null >"$dir/console" 2>&1 &
nspawn=$!

inside() { nsenter --target "$leader" --all -- "$@"; }

# Booting is over when its systemd says so; whether there is one yet can only be looked for.
for ((look = 0; look < 1000; look += 1)); do
  if ! kill -0 "$nspawn" 2>/dev/null; then cannot "systemd-nspawn ended: $(tail -n 3 "$dir/console" | tr '\n' ' ')"; fi
  [ -n "$leader" ] || leader=$(pgrep -P "$nspawn" -x systemd || true)
  if [ -n "$leader" ]; then
    case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
  fi
  sleep 0.02
done
[ "$look" -lt 1000 ] || cannot "no systemd has booted: $(tail -n 3 "$dir/console" | tr '\n' ' ')"

echo "$leader"
# Waits in the background, so that a signal is obeyed at once.
cat >/dev/null <&0 &
wait $! || true
