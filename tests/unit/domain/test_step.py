"""The one entry of every decision: its table of handlers and its example."""

import doctest
import typing
from dataclasses import dataclass

import pytest

from controller.domain import step as step_module
from controller.domain.events import DomainEvent
from controller.domain.step import HANDLERS, step
from tests.support.playbook import START, device, policies, rule


def test_every_event_type_has_exactly_one_handler() -> None:
    assert set(HANDLERS) == set(typing.get_args(DomainEvent))
    assert len(set(HANDLERS.values())) == len(HANDLERS)


@pytest.mark.parametrize(("event_type", "handler"), HANDLERS.items())
def test_handler_accepts_its_event_type(event_type: type[DomainEvent], handler: typing.Any) -> None:
    event = list(typing.get_type_hints(handler).items())[1]
    assert event[0] in ("event", "_event")
    assert event[1] is event_type


def test_example_of_the_docstring_runs() -> None:
    failed, attempted = doctest.testmod(step_module)
    assert (failed, attempted > 0) == (0, True)


@dataclass(frozen=True)
class UnknownEvent:
    event_id: str = "x"


def test_unknown_event_is_refused() -> None:
    with pytest.raises(TypeError, match="no handler for UnknownEvent"):
        step(device(), UnknownEvent(), START, policies(rule("a")))  # type: ignore[arg-type] # the point of the test
