#!/bin/bash
# Runs a command with the secrets that EMQX takes from its environment only. The health check goes through here as well:
# `docker exec` starts with the container's environment, not with that of the first process.
set -euo pipefail
folder=${CORDON_SECRETS:-/cordon/emqx}
EMQX_NODE__COOKIE=$(<"$folder/cookie")
EMQX_DASHBOARD__DEFAULT_PASSWORD=$(<"$folder/dashboard-password")
export EMQX_NODE__COOKIE EMQX_DASHBOARD__DEFAULT_PASSWORD
exec "$@"
