"""Domain values of every shape for hypothesis."""

import math
from typing import Any

from hypothesis import strategies as st

from controller.domain.device import ContainmentCase, Device, OpenCommand, RuleState
from controller.domain.effects import (
    CommandRecord,
    Effect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
    SendCommand,
)
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRule
from schemas.commands import CommandState

TEXT = st.text(max_size=12)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
UNTIL = st.none() | TIMES | st.just(math.inf)
COUNTS = st.integers(-1, 2**63 - 1)
PARAMS: Any = st.lists(st.tuples(TEXT, TEXT | st.booleans() | COUNTS), max_size=3).map(tuple)

RULES = st.builds(
    RuleState,
    result=st.sampled_from(RuleResult),
    since=TIMES,
    streak=COUNTS,
    detail=TEXT,
    remedies=COUNTS,
    last_remedy=TIMES,
)
CASES = st.builds(
    ContainmentCase,
    case_id=TEXT,
    level=st.sampled_from(ContainmentLevel),
    causes=st.lists(TEXT, max_size=3).map(tuple),
    by=TEXT,
    reason=TEXT,
    opened_at=TIMES,
    evidence_at=TIMES,
    hold_until=TIMES | st.just(math.inf),
    isolate_until=UNTIL,
    probation_until=TIMES,
    proven_level=st.sampled_from(ContainmentLevel),
    proven_at=st.none() | TIMES,
    trouble=TEXT,
)
OPEN_COMMANDS = st.builds(
    OpenCommand,
    command_id=TEXT,
    action=TEXT,
    params=PARAMS,
    counter=COUNTS,
    state=st.sampled_from(CommandState),
    issued_at=TIMES,
    expires_at=TIMES,
    by=TEXT,
    rule=TEXT,
    dry_run=st.booleans(),
)
DEVICES = st.builds(
    Device,
    device_id=TEXT,
    first_seen=TIMES,
    last_seen=TIMES,
    device_class=TEXT,
    tags=st.lists(TEXT, max_size=3).map(tuple),
    online=st.none() | st.booleans(),
    stale=st.booleans(),
    boot_id=TEXT,
    agent=TEXT,
    report_seq=COUNTS,
    digest=TEXT,
    reported_at=TIMES,
    accepted=COUNTS,
    judged_by=TEXT,
    satisfied=COUNTS,
    rules=st.dictionaries(TEXT, RULES, max_size=3),
    case=st.none() | CASES,
    counter=COUNTS,
    commands=st.lists(OPEN_COMMANDS, max_size=2).map(tuple),
)
_IDS = {"effect_id": TEXT, "device_id": TEXT, "case_id": TEXT}
EFFECTS: st.SearchStrategy[Effect] = st.one_of(
    st.builds(RestrictClient, by_policy=st.booleans(), **_IDS),
    st.builds(IsolateClient, by_policy=st.booleans(), until=UNTIL, reason=TEXT, **_IDS),
    st.builds(EndIsolation, **_IDS),
    st.builds(ReleaseClient, **_IDS),
    st.builds(
        SendCommand,
        effect_id=TEXT,
        device_id=TEXT,
        command_id=TEXT,
        action=TEXT,
        params=PARAMS,
        dry_run=st.booleans(),
        issued_at=TIMES,
        expires_at=TIMES,
        counter=COUNTS,
    ),
)
COMMANDS = st.builds(
    CommandRecord,
    command_id=TEXT,
    device_id=TEXT,
    action=TEXT,
    params=PARAMS,
    state=TEXT,
    reason=TEXT,
    detail=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    by=TEXT,
    rule=TEXT,
    dry_run=st.booleans(),
    issued_at=TIMES,
    expires_at=TIMES,
    updated_at=TIMES,
)
ACCESS_RULES: Any = st.lists(
    st.builds(
        AccessRule,
        topic=TEXT,
        permission=st.sampled_from(("allow", "deny")),
        action=st.sampled_from(("publish", "subscribe", "all")),
        qos=st.lists(st.integers(0, 2), max_size=3).map(tuple),
        retain=TEXT,
    ),
    max_size=4,
).map(tuple)
DETAILS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | COUNTS | TIMES | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    min_size=1,
    max_size=3,
)
