#!/usr/bin/env bash
# Makes sure that programs of Debian packages are installed:  tools/require-packages.sh package:program ...
# Installs the absent ones when root, else ends with status 1 and names them.
set -euo pipefail
absent=()
for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair#*:}" >/dev/null || absent+=("${pair%%:*}")
done
[ ${#absent[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update && apt-get -q install -y --no-install-recommends "${absent[@]}"
else
    echo "these packages are needed, install them first: ${absent[*]}" >&2
    exit 1
fi
