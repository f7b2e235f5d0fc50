#!/usr/bin/env bash
# Unpacks Debian's xinetd into .cache/xinetd, for the tests that compare with it: the package conflicts with other inetds,
# so that it cannot be installed beside them. Does nothing where xinetd is installed or unpacked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=.cache/xinetd
if PATH=$PATH:/usr/sbin:/sbin command -v xinetd >/dev/null || [ -x "$target/usr/sbin/xinetd" ]; then exit 0; fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "get-xinetd: needs apt-get and dpkg-deb" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(cd "$folder" && { apt-get -q download xinetd || { apt-get -q update && apt-get -q download xinetd; }; }) >&2
mkdir -p "$target"
dpkg-deb -x "$folder"/xinetd_*.deb "$target"
