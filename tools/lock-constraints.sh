#!/bin/sh
# Writes constraints.txt: the exact version of everything that `make demo` and `make test` install, indirect parts included.
# Needs uv (`pip install uv`). pip itself stays out: it comes with the interpreter and must not replace itself while it runs.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
command -v uv >/dev/null || {
    echo "lock-constraints: uv is missing; install it with: pip install uv" >&2
    exit 1
}
new=$(mktemp)
trap 'rm -f "$new"' EXIT INT TERM
cd "$here"
{
    echo "# Exact versions of everything that is installed here; written by tools/lock-constraints.sh, used by tools/setup-venv.sh."
    # hatchling and editables build the project; they are installed like the rest, so that their versions are fixed too.
    printf "%s\n" hatchling editables | uv pip compile --quiet --universal --python-version 3.11 --all-extras \
        --no-annotate --no-header --no-emit-index-url --no-emit-package pip pyproject.toml -
} >"$new"
cat "$new" >constraints.txt
echo "constraints.txt: $(grep -c == constraints.txt) packages"
