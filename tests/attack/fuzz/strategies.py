"""Hypothesis strategies for what may come over the wire: it finds small examples where the gauntlet only counts."""

import json
from typing import Any

from hypothesis import strategies as st

from schemas.topics import DownChannel, UpChannel, down, up
from tests.attack.fuzz.messages import beat, delta, event, renewal, report, result, status

_BODIES = {
    UpChannel.POSTURE: (report, beat, delta),
    UpChannel.STATUS: (status,),
    UpChannel.EVENT: (event,),
    UpChannel.RESULT: (result,),
    UpChannel.RENEW: (renewal,),
}

device_ids = st.one_of(
    st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z"),
    st.sampled_from(["", ".", "..", "a/b", "+", "#", "é", "x" * 65]),
)
topics = st.one_of(
    st.builds(up, device_ids, st.sampled_from(UpChannel)),
    st.builds(down, device_ids, st.sampled_from(DownChannel)),
    st.text(max_size=200),
    st.lists(st.sampled_from(["cordon", "v1", "up", "down", "posture", "a", "+", ""]), max_size=8).map("/".join),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(), inner, max_size=5)),
    max_leaves=30,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid message with some of its fields replaced, removed or added."""
    channel = draw(st.sampled_from(UpChannel))
    body: dict[str, Any] = draw(st.sampled_from(_BODIES[channel]))("edge-1", draw(st.integers(0, 2**54)))
    for key in draw(st.lists(st.sampled_from([*body, "extra"]), max_size=3)):
        if draw(st.booleans()):
            body.pop(key, None)
        else:
            body[key] = draw(values)
    return json.dumps(body).encode(errors="surrogatepass")


payloads = st.one_of(st.binary(max_size=2000), bodies(), values.map(lambda value: json.dumps(value).encode()))
