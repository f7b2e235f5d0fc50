"""What lists of devices have to contain, worked out over all devices in memory; and random fleets to list."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from controller.adapters.sql.store import SqlStore
from controller.adapters.system import UlidGenerator
from controller.domain import events as ev
from controller.domain.device import Device
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.guards.waivers import Waiver, Waivers
from controller.domain.policy.findings import Finding, RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.ports.fleet_queries import DeviceFilter, DeviceQuery, DeviceSort, FleetSummary
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork
from tests.support.clocks import START, ManualClock
from tests.support.playbook import language, policies, rule

RULES: Final = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)),
    rule("docker", RuleResponse(contain=ContainmentLevel.ISOLATED), severity=Severity.CRITICAL),
    rule("note", severity=Severity.LOW),
    rule("shadow", severity=Severity.MEDIUM, shadow=True),
)
SEVERITIES: Final = {key: one.severity for key, one in RULES.rules.items()}
DEVICES: Final = tuple(f"Edge-{number}" for number in range(7))
CLASSES: Final = ("", "press", "Pump")
TAGS: Final = ("hall-1", "hall-2", "Spare")
AGENTS: Final = ("1.3", "1.4")
_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity, 1)}
_RESULTS: Final = (RuleResult.PASS, RuleResult.FAIL, RuleResult.FAIL, RuleResult.UNKNOWN, RuleResult.ERROR)
_BOOLS: Final = st.none() | st.booleans()


def _maybe(*values: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)


FILTERS: Final = st.builds(
    DeviceFilter,
    level=_maybe(*ContainmentLevel),
    contained=_BOOLS,
    pending=_BOOLS,
    stale=_BOOLS,
    online=_BOOLS,
    device_class=_maybe(*CLASSES),
    tag=_maybe(*TAGS),
    agent=_maybe(*AGENTS),
    seen_before=_maybe(*(START + seconds for seconds in (0.0, 5.0, 20.0, 60.0))),
    search=_maybe("EDGE", "edge-3", "pUmP", "hall", "%", "spare\\"),
    rule=_maybe("telnet", "p/docker", "note", "q/telnet", "shadow"),
    result=_maybe(RuleResult.FAIL, RuleResult.UNKNOWN, RuleResult.ERROR),
    severity=_maybe(*Severity),
    waived=_BOOLS,
)
# Most lists are wanted by one or two things; all at once match nothing.
FEW: Final = st.lists(st.sampled_from(sorted(DeviceFilter.__dataclass_fields__)), max_size=3).flatmap(
    lambda names: FILTERS.map(lambda one: DeviceFilter(**{name: getattr(one, name) for name in names}))
)
EVENTS: Final = st.lists(
    st.tuples(
        st.sampled_from(DEVICES),
        st.sampled_from(["report"] * 3 + ["beat", "status", "stale", "label", "contain", "release", "proof"]),
        st.integers(0, 5**4 - 1),  # what it is about
        st.sampled_from([0.0, 0.0, 1.0, 30.0]),  # seconds before it
    ),
    min_size=10,
    max_size=60,
)
_SELECTIONS: Final[tuple[dict[str, str], ...]] = ({"device": DEVICES[0]}, {"tag": TAGS[0]}, {"expression": "true"})


def _waiver(number: int, rule_key: str, selects: int, seconds: float) -> Waiver:
    given = _SELECTIONS[selects]
    return Waiver(f"w{number}", rule_key, "ada", "r", "ada", START, START + seconds, **given)


WAIVERS: Final = st.lists(
    st.builds(
        _waiver,
        st.integers(0, 2),
        st.sampled_from(["p/telnet", "p/note", "p/*", "q/*"]),
        st.integers(0, 2),
        st.sampled_from([1.0, 9_000.0]),
    ),
    max_size=3,
    unique_by=lambda waiver: waiver.waiver_id,
)


@dataclass(slots=True)
class RandomFleet:
    """A fleet whose blast radius lets two devices be contained, over `store`."""

    fleet: FleetState
    clock: ManualClock
    count: int = 0

    @classmethod
    def over(cls, store: SqlStore) -> "RandomFleet":
        clock = ManualClock()
        guards = FleetGuards(BlastRadius(BlastRadiusLimits(2, 100.0, 600.0)))
        return cls(
            FleetState(
                store, RULES, language(), clock, UlidGenerator(), (), guards=guards, queries=store.fleet_queries
            ),
            clock,
        )

    async def grant(self, waivers: list[Waiver]) -> None:
        self.fleet.set_guards(waivers=Waivers(waivers))
        await self.fleet.commit(UnitOfWork(waivers={one.waiver_id: one for one in waivers}))

    async def play(self, events: Iterable[tuple[str, str, int, float]]) -> None:
        """Applies each event as ingest and the timers do, and commits it on its own."""
        played = list(events)
        await self.fleet.load({device_id for device_id, *_ in played})
        waiting = [committing for event in played if (committing := self._apply(*event)) is not None]
        for committing in waiting:
            await committing

    def _apply(self, device_id: str, kind: str, about: int, seconds: float) -> Awaitable[None] | None:
        self.clock.at += seconds
        self.count += 1
        now, fleet = self.clock.at, self.fleet
        device, batch = fleet.get_or_new(device_id, now), UnitOfWork()
        is_quiet = not (device.rules or device.case or device.commands or device.stale)
        if kind == "beat" and device.accepted and is_quiet:
            fleet.record_contact(device, now, batch)
        else:
            body = b"{}" if kind == "report" else None
            fleet.apply(device, self._event(device, kind, about), now, batch, body)
        return fleet.enqueue_commit(batch)

    def _event(self, device: Device, kind: str, about: int) -> ev.DomainEvent:
        event_id, now = f"e{self.count}", self.clock.at
        results = [_RESULTS[about // 5**place % 5] for place in range(4)]
        match kind:
            case "report":
                findings = tuple(
                    Finding(key, result, f"{key} is {result}") for key, result in zip(RULES.rules, results, strict=True)
                )
                return ev.PostureReported(
                    event_id,
                    device.report_seq + 1,
                    f"sha256:{about % 7:064x}",
                    "boot",
                    AGENTS[about % 2],
                    now,
                    None if f"sha256:{about % 7:064x}" == device.digest else findings,
                    RULES.version,
                    predicates=tuple(f"waiver:w{number}" for number in range(3) if about >> number & 1),
                )
            case "beat":
                return ev.HeartbeatReceived(event_id, device.report_seq, device.digest, now)
            case "status":
                return ev.StatusChanged(event_id, bool(about % 2), "boot")
            case "stale":
                return ev.DeviceWentStale(event_id, 300.0)
            case "label":
                tags = tuple(tag for number, tag in enumerate(TAGS) if about >> number & 1)
                return ev.DeviceLabelled(event_id, CLASSES[about % 3], tags, "operator:ada")
            case "contain":
                level = ContainmentLevel.RESTRICTED if about % 2 else ContainmentLevel.ISOLATED
                return ev.ContainmentOrdered(event_id, level, "operator:ada", "r", None)
            case "proof" if device.case is not None and about % 2:
                return ev.ContainmentProven(event_id, device.case.case_id, device.level, now, ())
            case "proof" if device.case is not None:
                nodes = (("node-2", "no answer"),)
                return ev.ContainmentPartlyProven(event_id, device.case.case_id, device.level, now, nodes, ())
            case _:
                return ev.ReleaseOrdered(event_id, "operator:ada", "r")


def matches(device: Device, where: DeviceFilter, waivers: Waivers, now: float) -> bool:
    """Whether a device belongs to the list."""
    words = (device.device_id, device.device_class, *device.tags)
    pairs: tuple[tuple[object, object], ...] = (
        (where.level, device.level),
        (where.contained, device.case is not None),
        (where.pending, device.pending is not None),
        (where.stale, device.stale),
        (where.online, device.online),
        (where.device_class, device.device_class),
        (where.agent, device.agent),
    )
    return (
        all(wanted is None or wanted == found for wanted, found in pairs)
        and (where.tag is None or where.tag in device.tags)
        and (where.seen_before is None or device.last_seen < where.seen_before)
        and (where.search is None or any(where.search.casefold() in one.casefold() for one in words))
        and _has_finding(device, where, waivers, now)
    )


def _has_finding(device: Device, where: DeviceFilter, waivers: Waivers, now: float) -> bool:
    if where.rule is None and where.result is None and where.severity is None and where.waived is None:
        return True
    for key, state in device.rules.items():
        is_waived = state.result is RuleResult.FAIL and waivers.covering(key, device, now) is not None
        if (
            state.result is (where.result or RuleResult.FAIL)
            and (where.rule is None or key == where.rule or key.endswith(f"/{where.rule}"))
            and (where.severity is None or _RANKS[SEVERITIES[key]] >= _RANKS[where.severity])
            and (where.waived is None or where.waived is is_waived)
        ):
            return True
    return False


SORT_KEYS: Final[dict[DeviceSort, Callable[[Device], Any]]] = {
    DeviceSort.ID: lambda device: device.device_id,
    DeviceSort.LAST_SEEN: lambda device: device.last_seen,
    DeviceSort.LEVEL: lambda device: device.level.rank,
    DeviceSort.SEVERITY: lambda device: max((_RANKS[SEVERITIES[key]] for key in _failing(device)), default=0),
    DeviceSort.FAILING: lambda device: len(_failing(device)),
    DeviceSort.CLASS: lambda device: device.device_class,
}


def _failing(device: Device) -> list[str]:
    return [key for key, state in device.rules.items() if state.result is RuleResult.FAIL]


def expected(devices: Iterable[Device], query: DeviceQuery, waivers: Waivers) -> list[Device]:
    """Every match in order, whatever the page."""
    found = [device for device in devices if matches(device, query.where, waivers, query.now)]
    key = SORT_KEYS[query.sort]
    return sorted(found, key=lambda device: (key(device), device.device_id), reverse=query.descending)


def expected_summary(devices: Iterable[Device]) -> FleetSummary:
    every = list(devices)
    states = [(key, state) for device in every for key, state in device.rules.items()]
    return FleetSummary(
        Counter((device.level, device.stale) for device in every),
        Counter(device.online for device in every),
        sum(device.pending is not None for device in every),
        sum(device.case is not None and bool(device.case.unread) for device in every),
        Counter(device.device_class for device in every if device.device_class),
        Counter(tag for device in every for tag in device.tags),
        Counter((key, state.result) for key, state in states),
        Counter(state.detail for _, state in states if state.result is not RuleResult.FAIL),
    )
