import pytest

from controller.standin.bans import Ban, BanKind, BanList, InvalidBanError, normalise


def _ban(kind: BanKind, who: str, until: int | None = 100) -> Ban:
    return Ban(kind, normalise(kind, who), "cordon", "", 0, until)


@pytest.mark.parametrize(
    ("kind", "who", "refused"),
    [
        ("clientid", "dev", True),
        ("clientid", "other", False),
        ("username", "joe", True),
        ("peerhost", "192.0.2.7", True),
        ("peerhost", "192.0.2.8", False),
        ("clientid_re", "^d", True),
        ("clientid_re", "^x", False),
        ("username_re", "oe$", True),
        ("peerhost_net", "192.0.2.0/24", True),
        ("peerhost_net", "192.0.3.0/24", False),
    ],
)
def test_whom_each_kind_refuses(kind: BanKind, who: str, refused: bool) -> None:
    bans = BanList()
    assert bans.create(_ban(kind, who), 0.0) is None
    assert bans.is_banned("dev", "joe", "192.0.2.7", 50.0) is refused
    assert not bans.is_banned("dev", "joe", "192.0.2.7", 100.0)


def test_a_client_without_name_is_in_no_ban_of_names() -> None:
    bans = BanList()
    bans.create(_ban("username_re", ".*"), 0.0)
    assert not bans.is_banned("dev", None, "192.0.2.7", 50.0)


def test_an_active_row_cannot_be_replaced_an_expired_one_can() -> None:
    bans = BanList()
    first, second = _ban("clientid", "dev"), _ban("clientid", "dev", until=None)
    bans.create(first, 0.0)
    assert bans.create(second, 99.0) == first
    assert bans.create(second, 100.0) is None
    assert bans.get("clientid", "dev") == second


def test_expired_rows_stay_until_the_sweep() -> None:
    bans = BanList()
    bans.create(_ban("clientid", "a"), 0.0)
    bans.create(_ban("clientid_re", "b", until=None), 0.0)
    assert len(bans) == 2
    assert bans.sender_banned("a")
    bans.remove_expired(101.0)
    assert [ban.who for ban in bans.rows()] == ["b"]
    bans.clear()
    assert len(bans) == 0
    assert not bans.delete("clientid", "a")


@pytest.mark.parametrize(("kind", "who"), [("peerhost", "nope"), ("peerhost_net", "x/1"), ("clientid_re", "(")])
def test_subjects_that_are_none(kind: BanKind, who: str) -> None:
    with pytest.raises(InvalidBanError):
        normalise(kind, who)
