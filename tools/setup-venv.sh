#!/usr/bin/env bash
# Makes .venv and installs the project into it, with the versions of constraints.txt:  tools/setup-venv.sh controller|dev|dev-NAME
# Needs Python 3.11 or later and nothing else of the system: no pip, no venv package, no root. Done once; again when what it
# installs has changed. PYTHON chooses the interpreter.
set -euo pipefail

extra=${1:-}
# An extra dev-NAME is installed beside those that are there; with it, dev is there too.
case $extra in
controller | dev) extras=$extra ;;
dev-*) extras=dev,$extra ;;
*) echo "usage: tools/setup-venv.sh controller|dev|dev-NAME" >&2; exit 2 ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$here/.venv
cache=$here/.cache
log=$cache/setup.log

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is not Python 3.11 or later"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or later is needed; python3 here is: $(python3 --version 2>/dev/null || echo missing)" \
        "if it lies elsewhere: make PYTHON=/path/to/python3.11 ..."
}

# What the installation depends on: when one of these changes, it is done again.
fingerprint() {
    { echo "$here"; "$1" --version; cat "$here/pyproject.toml" "$here/constraints.txt"; } | sha256sum | cut -d' ' -f1
}

# Debian splits pip off python3: its wheel comes from the machine's own apt sources, unpacked beside us, nothing installed.
fetch_pip_wheel() {
    local tool apt work
    for tool in apt-get dpkg-deb; do
        command -v "$tool" >/dev/null ||
            die "this Python has no ensurepip; install your system's package for venv (python3-venv), then try again"
    done
    work=$cache/pip-wheel
    rm -rf "$work"
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
    apt=(apt-get -q -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Acquire::Retries=3
        -o "Dir::State=$work/state" -o Dir::State::status=/var/lib/dpkg/status -o "Dir::Cache=$work/cache")
    echo "setup: this Python has no ensurepip: getting pip from the Debian package python3-pip-whl"
    (cd "$work" && "${apt[@]}" update && "${apt[@]}" download python3-pip-whl) >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "python3-pip-whl could not be fetched; install python3-venv by your system's means, then try again"
    }
    dpkg-deb -x "$work"/python3-pip-whl_*.deb "$work/root"
    rm -rf "$work/state" "$work/cache"
}

make_venv() {
    local python wheel
    python=$(choose_python)
    echo "setup: making .venv with $("$python" --version)"
    rm -rf "$venv"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv "$venv"
        return
    fi
    fetch_pip_wheel
    "$python" -m venv --without-pip "$venv"
    wheel=$(find "$cache/pip-wheel/root" -name 'pip-*.whl' -print -quit)
    "$venv/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
    rm -rf "$cache/pip-wheel"
}

# A dot for each package, the whole story in the log.
pip_install() {
    local line
    printf 'setup: installing %s ' "$1"
    shift
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        -c "$here/constraints.txt" "$@" 2>&1 | tee "$log" | while IFS= read -r line; do
        case $line in Collecting* | *"already satisfied"*) printf . ;; esac
    done; then
        echo >&2
        tail -n 30 "$log" >&2
        die "pip failed; the whole output is in ${log#"$here"/}"
    fi
    echo ' done'
}

[ -w "$here" ] || die "$here cannot be written to by $(id -un 2>/dev/null || id -u); clone it to a folder of your own"
mkdir -p "$cache"
if command -v flock >/dev/null; then
    exec 9>"$cache/setup.lock"
    flock 9
fi

if [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python"; then
    stamps=("$venv/.cordon-$extra")
    [ "$extra" != controller ] || stamps+=("$venv/.cordon-dev")
    for stamp in "${stamps[@]}"; do
        [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint "$venv/bin/python")" ] && exit 0
    done
    # The scripts in a copied environment still name the folder that it came from.
    grep -qsF "$venv" "$venv/bin/activate" || make_venv
else
    make_venv
fi
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

rm -f "$venv/.cordon-$extra"
pip_install "what builds it" hatchling editables
pip_install "the project ($extra), this takes a minute or two" --no-build-isolation -e "$here[$extras]"
for extra in ${extras//,/ }; do
    fingerprint "$venv/bin/python" >"$venv/.cordon-$extra"
done
