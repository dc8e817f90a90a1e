#!/usr/bin/env bash
# A Docker daemon of its own, which leaves the host's network and firewall alone, and a stand-in for the base image,
# because none is pulled: this machine's node and npm with their libraries, where `npm ci` brings what the checkout has,
# because no registry is asked. PYTHON_IMAGE is another one, with this machine's Python in place of node and npm, where pip
# and apt-get bring what it has. Says the address of its socket when it is ready, and goes with standard input. Exits 77
# with a reason where that cannot be.
# usage: docker-box.sh CHECKOUT IMAGE [PYTHON_IMAGE]
set -euo pipefail

checkout=$1 image=$2 python_image=${3:-}

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
mkdir -p "$root"/{etc/ssl/certs,tmp,proc,sys,dev,run,root,home/node,usr/bin,usr/local/bin,usr/lib64}
chmod 1777 "$root/tmp"
for name in bin lib lib64; do ln -s "usr/$name" "$root/$name"; done
# The libraries of programs, each where it is.
copy_libraries() {
  for file; do ldd "$file" | grep -o '/[^ ]*' || true; done | sort -u | while read -r library; do
    mkdir -p "$root/usr$(dirname "${library#/usr}")"
    cp -Ln "$library" "$root/usr${library#/usr}"
  done
}
for tool in node dash env mkdir cp rm chown sleep; do
  cp -L "$(command -v "$tool")" "$root/usr/bin/$tool"
  copy_libraries "$(command -v "$tool")"
done
ln -s dash "$root/usr/bin/sh"
# Where the image that this one stands for has it.
mv "$root/usr/bin/node" "$root/usr/local/bin/node"
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
import_as() { tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/bin' - "$1" >/dev/null; }
import_as "$image"

if [ -n "$python_image" ]; then
  packages=/usr/lib/python3/dist-packages
  [ -d "$packages/fastapi" ] || cannot 'there is no FastAPI: apt-get install -y --no-install-recommends uvicorn python3-fastapi'
  rm -rf "$root"/usr/local/bin/node "$root"/usr/bin/npm "$root"/usr/lib/node_modules "$root"/offline
  mkdir -p "$root$packages" "$root/offline/packages"
  python=$(readlink -f /usr/bin/python3)
  library=/usr/lib/${python##*/}
  cp "$python" "$root/usr/bin/python3"
  cp -R "$library" "$root/usr/lib/"
  rm -rf "$root$library"/{config-*,idlelib,lib2to3,test}
  copy_libraries "$python" "$library"/lib-dynload/*.so
  for name in fastapi starlette pydantic uvicorn h11 click anyio sniffio idna asgiref typing_extensions.py; do
    cp -RL "$packages/$name" "$root/offline/packages/"
  done
  # By which its program finds it.
  cp -RL "$packages"/uvicorn-*-info "$root/offline/packages/"
  cp -L /usr/bin/uvicorn /usr/bin/tini "$root/offline/"
  printf '#!/bin/sh\ncp -R /offline/packages/* %s && cp /offline/uvicorn /usr/bin\n' "$packages" >"$root/usr/bin/pip"
  printf '#!/bin/sh\ncp /offline/tini /usr/bin\n' >"$root/usr/bin/apt-get"
  chmod +x "$root/usr/bin/pip" "$root/usr/bin/apt-get"
  import_as "$python_image"
fi
rm -rf "$root"

printf '%s\n' "$DOCKER_HOST"
cat >/dev/null
