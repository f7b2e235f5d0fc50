"""What an operator may ask for beside a containment: kept out of the cases, because no policy ever asks for it."""

from dataclasses import dataclass, replace

from controller.domain.draft import Draft
from controller.domain.effects import Effect, IsolateClient, RestrictClient


@dataclass(frozen=True, slots=True)
class Options:
    """`kick`: a restriction also destroys the session, and with it queued commands. `clear_retained`: an isolation also
    deletes what the device left retained at the broker.
    """

    kick: bool = False
    clear_retained: bool = False


NO_OPTIONS = Options()


def apply(draft: Draft, options: Options) -> None:
    """Give the effects of this step the options; a containment that was kept as it is has no effect to change."""
    if options != NO_OPTIONS:
        draft.effects[:] = [_with(effect, options) for effect in draft.effects]


def _with(effect: Effect, options: Options) -> Effect:
    match effect:
        case RestrictClient():
            return replace(effect, kick=options.kick)
        case IsolateClient():
            return replace(effect, clear_retained=options.clear_retained)
        case _:
            return effect
