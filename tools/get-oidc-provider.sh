#!/usr/bin/env bash
# Fetches the npm package oidc-provider, at the locked versions, into .cache/oidc-provider: the OpenID provider of the browser
# suite. Does nothing where these versions are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source=tests/browser/oidc_provider target=.cache/oidc-provider
cmp -s "$source/package-lock.json" "$target/done" && exit 0
rm -rf "$target"
mkdir -p "$target"
cp "$source"/package.json "$source"/package-lock.json "$target"
(cd "$target" && PATH="$PWD/../../.venv/bin:$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
cp "$source/package-lock.json" "$target/done"
