"""Topics are built and parsed by `schemas.topics`; all others are rejected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.base import DEVICE_ID_PATTERN
from schemas.topics import DownChannel, TopicError, UpChannel, UpTopic, parse_up

device_ids = st.from_regex(DEVICE_ID_PATTERN, fullmatch=True)


@given(device_ids, st.sampled_from(UpChannel))
def test_built_topics_are_parsed(device_id: str, channel: UpChannel) -> None:
    assert parse_up(topics.up(device_id, channel)) == UpTopic(device_id, channel)


@given(st.text(max_size=80))
def test_any_text_is_a_topic_or_rejected(text: str) -> None:
    try:
        parsed = parse_up(text)
    except TopicError:
        return
    assert topics.up(parsed.device_id, parsed.channel) == text


@given(st.text(max_size=70))
def test_topics_with_an_invalid_device_id_are_rejected(device_id: str) -> None:
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
def test_topics_outside_the_protocol_are_rejected(topic: str) -> None:
    with pytest.raises(TopicError):
        parse_up(topic)


def test_topics_and_filters_have_the_format_of_the_protocol() -> None:
    assert topics.up("d", UpChannel.POSTURE) == "cordon/v1/d/up/posture"
    assert topics.down("d", DownChannel.COMMAND) == "cordon/v1/d/down/command"
    assert topics.ALL_UP == "cordon/v1/+/up/+"
    assert topics.up_branch("d") == "cordon/v1/d/up/#"
    assert topics.down_branch("${clientid}") == "cordon/v1/${clientid}/down/#"
    assert topics.ALL_TOPICS == "cordon/v1/#"
    assert topics.ALL_DOWN == "cordon/v1/+/down/+"
    assert topics.down("+", DownChannel.RECEIPT) == "cordon/v1/+/down/receipt"
