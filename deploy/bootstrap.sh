#!/usr/bin/env bash
# Makes a fresh Debian with Python 3.11 ready for `make run` or `make test`; does nothing when it is.
# usage: deploy/bootstrap.sh run|test
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-run}
python=${PYTHON:-python3}
case $purpose in
run) lock=requirements-sandbox.lock ;;
test) lock=requirements-dev.lock ;;
*)
    echo "usage: $0 run|test" >&2
    exit 2
    ;;
esac

# --- Debian packages ---

missing=()
if [ ! -x .venv/bin/python ] && ! "$python" -c 'import ensurepip' 2>/dev/null; then
    missing+=(python3-venv)
fi
if [ "$purpose" = test ]; then
    command -v openssl >/dev/null || missing+=(openssl)
    command -v redis-server >/dev/null || missing+=(redis-server)
    [ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15)
    command -v chromium >/dev/null || missing+=(chromium)
    [ -d /usr/share/fonts/opentype/noto ] || missing+=(fonts-noto-cjk)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "This computer lacks: ${missing[*]}" >&2
        echo "Install them and try again, on Debian with: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing ${missing[*]} …"
    if [[ " ${missing[*]} " == *" postgresql-15 "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        # The tests want the programs only; a cluster that Debian would start itself is not wanted.
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then # the tests start their own servers: no service may start by being installed
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null
fi

# --- Python packages ---

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is $("$python" -V); Zhenfu needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …" >&2
    exit 1
fi

exec 9>.bootstrap.lock
flock 9
if [ ! -x .venv/bin/python ]; then
    "$python" -m venv .venv
fi
# uv takes a tenth of pip's time, but reads none of pip's settings: where it cannot reach a registry, pip does it all.
install() {
    local pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" --require-hashes -r <(sed -n '/^uv==/,/[^\\]$/p' "$1")
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r "$1" 2>/dev/null ||
        "${pip[@]}" --require-hashes -r "$1"
    "${pip[@]}" --no-deps --no-build-isolation -e .
}
# The tests' lock holds everything of the sandbox's, so whoever has tested need install nothing to run.
stamp() { cat "$1" pyproject.toml | sha256sum | cut -d ' ' -f 1; }
is_installed() { [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$(stamp "$1")" ]; }
if ! is_installed "$lock" && ! is_installed requirements-dev.lock; then
    echo "Installing Python packages from $lock …"
    rm -f .venv/installed-*
    install "$lock"
    stamp "$lock" >".venv/installed-$lock"
fi

# --- Pages ---

if [ "$purpose" = test ]; then
    .venv/bin/python deploy/assets.py --dev
else
    .venv/bin/python deploy/assets.py
fi
