"""Topics: built and read by one file, and nothing else gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.base import DEVICE_ID_PATTERN
from schemas.topics import DownChannel, TopicError, UpChannel, UpTopic, parse_up

device_ids = st.from_regex(DEVICE_ID_PATTERN, fullmatch=True)


@given(device_ids, st.sampled_from(UpChannel))
def test_what_is_built_is_read_back(device_id: str, channel: UpChannel) -> None:
    assert parse_up(topics.up(device_id, channel)) == UpTopic(device_id, channel)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parsed = parse_up(text)
    except TopicError:
        return
    assert topics.up(parsed.device_id, parsed.channel) == text


@given(st.text(max_size=70))
def test_what_is_no_device_id_is_refused(device_id: str) -> None:
    topic = topics.up(device_id, UpChannel.EVENT)
    try:
        assert parse_up(topic).device_id == device_id
    except TopicError:
        assert not device_id.isalnum() or not device_id.isascii() or len(device_id) > 64


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "cordon/v1/edge-17/up",
        "cordon/v1/edge-17/up/posture/more",
        "cordon/v2/edge-17/up/posture",
        "other/v1/edge-17/up/posture",
        "/cordon/v1/edge-17/up/posture",
        "cordon/v1/edge-17/down/command",
        "cordon/v1/edge-17/up/other",
        "cordon/v1//up/posture",
        "cordon/v1/+/up/posture",
        "cordon/v1/#",
        "cordon/v1/./up/posture",
        "cordon/v1/../up/posture",
        "cordon/v1/edge 17/up/posture",
        "cordon/v1/edge-17\n/up/posture",
        "cordon/v1/edge-17/up/posture\n",
        "cordon/v1/" + "a" * 65 + "/up/posture",
    ],
)
def test_what_is_outside_the_protocol(topic: str) -> None:
    with pytest.raises(TopicError):
        parse_up(topic)


def test_the_topics_of_the_protocol() -> None:
    assert topics.up("d", UpChannel.POSTURE) == "cordon/v1/d/up/posture"
    assert topics.down("d", DownChannel.COMMAND) == "cordon/v1/d/down/command"
    assert topics.ALL_UP == "cordon/v1/+/up/+"
    assert topics.up_branch("d") == "cordon/v1/d/up/#"
    assert topics.down_branch("${clientid}") == "cordon/v1/${clientid}/down/#"
    assert topics.everything() == "cordon/v1/#"
    assert topics.down_all() == "cordon/v1/+/down/+"
    assert topics.down_any(DownChannel.RECEIPT) == "cordon/v1/+/down/receipt"
