#!/usr/bin/env bash
# A Docker daemon of its own, which leaves the host's network and firewall alone, and a stand-in for the base image,
# because none is pulled: this machine's node and npm with their libraries, where `npm ci` brings what the checkout has,
# because no registry is asked. Says the address of its socket when it is ready, and goes with standard input. Exits 77
# with a reason where that cannot be. usage: docker-box.sh CHECKOUT IMAGE
set -euo pipefail

checkout=$1 image=$2

cannot() {
  printf '%s\n' "$1"
  exit 77
}

[ "$(id -u)" -eq 0 ] || cannot 'only root can start a Docker daemon'
for program in docker dockerd; do
  command -v "$program" >/dev/null || cannot "there is no $program"
done

dir=$(mktemp -d /tmp/master-agent-docker.XXXXXX)
export DOCKER_HOST=unix://$dir/socket
daemon=''

# shellcheck disable=SC2329 # Run by the trap.
clean_up() {
  if [ -n "$daemon" ]; then
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    # What a daemon leaves mounted when it ends.
    umount "$dir/exec/netns/default" 2>/dev/null || true
  fi
  rm -rf "$dir"
}
trap clean_up EXIT

dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --host "$DOCKER_HOST" --bridge=none \
  --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$dir/log" 2>&1 </dev/null &
daemon=$!
until docker version >/dev/null 2>&1; do
  if ! kill -0 "$daemon" 2>/dev/null; then cannot "dockerd does not run here: $(tail -n 1 "$dir/log")"; fi
  sleep 0.1
done

root=$dir/root
mkdir -p "$root"/{etc/ssl/certs,tmp,proc,sys,dev,run,root,home/node,usr/bin,usr/lib64}
chmod 1777 "$root/tmp"
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
# The programs with their libraries, each where it is.
for tool in node dash env mkdir cp rm; do
  cp -L "$(command -v "$tool")" "$root/usr/bin/$tool"
  ldd "$(command -v "$tool")" | grep -o '/[^ ]*' || true
done | sort -u | while read -r library; do
  mkdir -p "$root/usr$(dirname "${library#/usr}")"
  cp -Ln "$library" "$root/usr${library#/usr}"
done
ln -s dash "$root/usr/bin/sh"
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
mkdir -p "$root/usr/lib/node_modules" "$root/offline/production/node_modules" "$root/offline/all/node_modules"
cp -a "$npm" "$root/usr/lib/node_modules/npm"
cat >"$root/usr/bin/npm" <<'TEXT'
#!/bin/sh
[ "$1" = ci ] || exec node /usr/lib/node_modules/npm/bin/npm-cli.js "$@"
case " $* " in *' --omit=dev '*) exec cp -R /offline/production/node_modules . ;; *) exec cp -R /offline/all/node_modules . ;; esac
TEXT
chmod +x "$root/usr/bin/npm"
# The ones of production, and beside them only what builds.
(cd "$checkout" && npm ls --omit=dev --omit=optional --all --parseable 2>/dev/null) | while read -r path; do
  name=${path#"$checkout"/}
  if [ "$path" = "$checkout" ] || [ -e "$root/offline/production/$name" ]; then continue; fi
  mkdir -p "$root/offline/production/$(dirname "$name")"
  cp -RL "$path" "$root/offline/production/$name"
done
for name in typescript esbuild @esbuild @types/node undici-types koffi; do
  mkdir -p "$root/offline/all/node_modules/$(dirname "$name")"
  cp -RL "$checkout/node_modules/$name" "$root/offline/all/node_modules/$name"
done
cp -R "$root"/offline/production/node_modules/. "$root/offline/all/node_modules/"
mkdir -p "$root/offline/all/node_modules/.bin"
ln -s ../typescript/bin/tsc ../esbuild/bin/esbuild "$root/offline/all/node_modules/.bin/"
printf 'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnode:x:1000:\n' >"$root/etc/group"
tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/bin' - "$image" >/dev/null
rm -rf "$root"

printf '%s\n' "$DOCKER_HOST"
cat >/dev/null
