"""One-line summaries of the API's rollout objects, for the CLI and the demo."""

from typing import Any


def state_of(rollout: dict[str, Any]) -> str:
    """Returns the state, and whether it is paused."""
    return f"{rollout['state']} (paused)" if rollout["paused"] else str(rollout["state"])


def progress_line(rollout: dict[str, Any]) -> str:
    """Returns the progress of a rollout in one line."""
    rings = []
    for ring in rollout["rings"]:
        text = f"{ring['name']} {ring['confirmed'] + ring['had_it']}/{ring['devices']}"
        if ring["errors"]:
            text += f", {ring['errors']} errors"
        if ring["reverted"]:
            text += f", {ring['reverted']} back"
        rings.append(text)
    return f"{rollout['rollout_id']} {state_of(rollout)}: {'; '.join(rings)}"
