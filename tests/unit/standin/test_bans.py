import pytest

from controller.standin.bans import Ban, BanKind, BanList, InvalidBanError, normalise


def _ban(kind: BanKind, subject: str, until: int | None = 100) -> Ban:
    return Ban(kind, normalise(kind, subject), "cordon", "", 0, until)


@pytest.mark.parametrize(
    ("kind", "subject", "banned"),
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
def test_each_kind_of_ban_matches_its_subject(kind: BanKind, subject: str, banned: bool) -> None:
    bans = BanList()
    assert bans.create(_ban(kind, subject), 0.0) is None
    assert bans.is_banned("dev", "joe", "192.0.2.7", 50.0) is banned
    assert not bans.is_banned("dev", "joe", "192.0.2.7", 100.0)


def test_username_bans_do_not_match_a_client_without_user_name() -> None:
    bans = BanList()
    bans.create(_ban("username_re", ".*"), 0.0)
    assert not bans.is_banned("dev", None, "192.0.2.7", 50.0)


def test_only_an_expired_ban_can_be_replaced() -> None:
    bans = BanList()
    first, second = _ban("clientid", "dev"), _ban("clientid", "dev", until=None)
    bans.create(first, 0.0)
    assert bans.create(second, 99.0) == first
    assert bans.create(second, 100.0) is None
    assert bans.get("clientid", "dev") == second


def test_expired_bans_stay_until_they_are_removed() -> None:
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


@pytest.mark.parametrize(("kind", "subject"), [("peerhost", "nope"), ("peerhost_net", "x/1"), ("clientid_re", "(")])
def test_an_invalid_subject_is_rejected(kind: BanKind, subject: str) -> None:
    with pytest.raises(InvalidBanError):
        normalise(kind, subject)
