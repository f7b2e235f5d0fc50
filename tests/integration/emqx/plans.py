"""Compares the calls that were made with those that a plan shows."""

import re

from controller.adapters.emqx.client.http import API
from controller.ports.broker import PlannedStage, Proof

# They map addresses to nodes, which is part of reading back and of no plan.
_NOT_PLANNED = ("GET /cluster", "GET /nodes")


def calls_not_in_plan(proof: Proof, stages: tuple[PlannedStage, ...]) -> set[str]:
    patterns = [
        _pattern(f"{call.method} {call.path.removeprefix(API).partition('?')[0]}")
        for stage in stages
        for _, calls in stage.acts + stage.looks
        for call in calls
    ]
    made = {step.call for step in proof.steps if step.call and step.call not in _NOT_PLANNED}
    return {call for call in made if not any(pattern.fullmatch(call) for pattern in patterns)}


def _pattern(call: str) -> re.Pattern[str]:
    """Placeholders stand for what only EMQX can tell."""
    return re.compile(re.sub(r"<[^>]*>", "[^/]+", call))
