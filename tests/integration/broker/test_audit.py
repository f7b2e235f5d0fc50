"""A deliberately bad stand-in has every planted weakness found, a good one none, and what cannot be read is unknown."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import open_emqx
from controller.adapters.emqx.inspection import EmqxInspector
from controller.adapters.probes import probe_context
from controller.adapters.system import SystemClock
from controller.app.broker import auditor
from controller.domain.policy.findings import RuleResult
from controller.main import main
from controller.ports.inspection import DashboardLogin
from controller.service.broker.audit import BrokerAudit, BrokerAuditor
from controller.service.settings.settings import Settings
from tests.support.api import TOKEN
from tests.support.api_server import ApiServer
from tests.support.certs import Certs
from tests.support.controller_harness import SETTINGS
from tests.support.emqx_calls import add_ban
from tests.support.standin import StandInProcess

YEARS_AGO = "2023-01-01T00:00:00Z"
ADMIN = DashboardLogin("admin", "a-password-of-its-own")
TLS = {"verify": "verify_peer", "fail_if_no_peer_cert": True, "enable_crl_check": True}
GOOD: dict[str, Any] = {
    "listeners": {"tcp:default": {"bind": "127.0.0.1:1883", "zone": "own"}, "ssl:default": {"ssl_options": TLS}},
    "zone": {"mqtt": {"peer_cert_as_clientid": "cn"}},
    "zones": {
        "own": {
            "mqtt": {"max_inflight": 1000, "max_mqueue_len": 100_000},
            "force_shutdown": {"max_heap_size": "512MB", "max_mailbox_size": 100_000},
        }
    },
    "authorization": {"no_match": "deny"},
    "sources": [{"type": "built_in_database"}],
    "dashboard": {"username": ADMIN.username, "password": ADMIN.password},
    "api_keys": [
        {"name": "cordon", "created_at": "2026-10-01T00:00:00Z", "expired_at": "2027-03-01T00:00:00Z"},
        {
            "name": "grafana",
            "role": "viewer",
            "created_at": "2026-10-01T00:00:00Z",
            "expired_at": "2027-03-01T00:00:00Z",
        },
        {"name": "gone", "enable": False, "expired_at": "infinity"},
    ],
    "cookie": "a-long-random-text",
    "rule_engine": {"limit_selects_in_namespace": False},
}
BAD: dict[str, Any] = {
    "listeners": {
        "tcp:default": {"bind": "0.0.0.0:1883"},
        "ssl:default": {
            "ssl_options": {
                "verify": "verify_none", "fail_if_no_peer_cert": False, "enable_crl_check": False,
                "versions": ["tlsv1.3", "tlsv1.2", "tlsv1.1"],
            },
        },
    },
    "zone": {
        "mqtt": {
            "peer_cert_as_clientid": "disabled", "use_username_as_clientid": False, "max_inflight": 32,
            "max_mqueue_len": 1000, "session_expiry_interval": "5m",
        },
        "flapping_detect": {"enable": True},
        "force_shutdown": {"max_heap_size": "1MB"},
    },
    "authorization": {"no_match": "allow", "cache": {"enable": True, "ttl": "1h", "max_size": 32, "excludes": []}},
    "sources": [
        {"type": "file", "rules": '%% comment\n{deny, all, subscribe, ["$SYS/#"]}.\n{allow, all}.\n'},
        {"type": "built_in_database"},
    ],
    "auto_subscribe": [{"topic": "fleet/${clientid}/in"}, {"topic": "cordon/v1/${clientid}/down/#"}],
    "dashboard": {"username": "admin", "password": "public"},
    "api_keys": [
        {"name": "old", "created_at": YEARS_AGO, "expired_at": "infinity"},
        {"name": "other", "created_at": YEARS_AGO, "expired_at": "infinity"},
    ],
    "cookie": "emqxsecretcookie",
    "rule_engine": {"limit_selects_in_namespace": True},
    "versions": {"emqx2@127.0.0.1": "5.7.2"},
}  # fmt: skip
# Every rule of the pack; those that a loopback stand-in cannot break by configuration are named below.
NEEDS_ANOTHER_HOST = {"emqx/api-over-tls", "emqx/node-names-number-their-ports", "emqx/every-node-runs"}


class ShortCerts(Certs):
    """A server certificate that ends in three days."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        soon = datetime.now(UTC) + timedelta(days=3)
        leaf = self._authority.issue_cert("127.0.0.1", "localhost", not_after=soon)
        self._write(leaf, self.server_cert, self.server_key)


@pytest.fixture
async def good(tmp_path: Path) -> AsyncIterator[StandInProcess]:
    with StandInProcess(nodes=2, users=[("lab", "lab-password")], certs=Certs(tmp_path / "certs")) as process:
        process.configure(GOOD)
        async with open_emqx(process.api_urls, process.key, process.secret, clock=SystemClock()) as broker:
            groups = {"shared_subscription_group": {"cordon": {"strategy": "hash_clientid"}}}
            await broker.api.send(requests.json_request("PUT", "/configs/broker", "set strategy", body=groups))
        yield process


@asynccontextmanager
async def opened_auditor(process: StandInProcess, certs: Certs | None = None) -> AsyncIterator[BrokerAuditor]:
    own = None if certs is None else certs.client("cordon-controller")
    async with open_emqx(process.api_urls, process.key, process.secret, clock=SystemClock()) as broker:
        inspector = EmqxInspector(
            broker.api,
            SystemClock(),
            controller_id="cordon-controller",
            ports=frozenset({1883}),
            receive_maximum=1000,
            context=lambda: probe_context(None, None) if own is None else probe_context(*own),
            is_shared=True,
        )
        yield auditor(inspector, Settings.model_validate(SETTINGS))


def by(audit: BrokerAudit, *results: RuleResult) -> set[str]:
    return {one.rule for one in audit.items if one.result in results}


async def test_a_good_broker_has_no_finding(good: StandInProcess, tmp_path: Path) -> None:
    async with opened_auditor(good, Certs(tmp_path / "client")) as one:
        audit = await one.audit(ADMIN)
    left = {
        item.rule: (item.result, item.detail, item.facts) for item in audit.items if item.result is not RuleResult.PASS
    }
    assert left == {}
    assert len(audit.items) >= 28


async def test_every_planted_weakness_is_found(tmp_path: Path) -> None:
    certs = ShortCerts(tmp_path / "certs")
    with StandInProcess(nodes=2, certs=certs) as process:
        process.configure(BAD)
        async with open_emqx(process.api_urls, process.key, process.secret, clock=SystemClock()) as broker:
            everything = [{"topic": "#", "permission": "allow", "action": "all"}]
            path = "/authorization/sources/built_in_database/rules/all"
            await broker.api.send(requests.json_request("POST", path, "plant", body={"rules": everything}))
            await add_ban(broker.api, "somebody", "somebody")
        process.hide(1, bans=["somebody"])
        async with opened_auditor(process, certs) as one:
            audit = await one.audit(DashboardLogin("admin", "public"))
    every = {item.rule for item in audit.items}
    assert by(audit, RuleResult.FAIL) == every - NEEDS_ANOTHER_HOST
    shown = {fact.name: fact.value for item in audit.items for fact in item.facts}
    assert shown["anonymous_listeners"] == "ssl:default, tcp:default"
    assert shown["administrator_api_keys"] == "old, other"
    assert shown["certificate_days_left"] in ("2", "3")
    assert all(item.fix and item.why for item in audit.items)


async def test_what_may_not_be_read_is_unknown_with_its_reason(good: StandInProcess) -> None:
    async with opened_auditor(good) as one:
        audit = await one.audit(None)
    unknown = {item.rule: item.detail for item in audit.items if item.result is RuleResult.UNKNOWN}
    assert set(unknown) == {"emqx/api-keys-end", "emqx/api-keys-not-old", "emqx/few-mighty-api-keys"}
    assert all("--dashboard-user" in text for text in unknown.values())


async def test_audits_one_after_the_other_lock_nobody_out(good: StandInProcess) -> None:
    async with opened_auditor(good) as one:
        for _ in range(8):
            audit = await one.audit(None)
            assert "emqx/no-default-dashboard-login" in by(audit, RuleResult.PASS)
        assert by(await one.audit(ADMIN), RuleResult.UNKNOWN) == set(), "the operator's own login is not locked"


async def test_a_hidden_cookie_is_unknown(good: StandInProcess) -> None:
    good.configure({"cookie": "******"})
    async with opened_auditor(good) as one:
        audit = await one.audit(ADMIN)
    (cookie,) = [item for item in audit.items if item.rule == "emqx/no-default-cookie"]
    assert (cookie.result, "hides the cookie" in cookie.detail) == (RuleResult.UNKNOWN, True)


def test_findings_as_an_operator_sees_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ApiServer(tmp_path / "c.db", {}) as server:
        server.answers["authorization"] = {"no_match": "allow", "cache": {"enable": True, "ttl": "1m"}}
        argv = ["broker", "audit", "--url", server.url, "--token", TOKEN]
        assert main(argv) == 1
        out = capsys.readouterr().out
        assert "emqx/what-no-rule-allows-is-denied" in out
        assert "fix: Give devices rules first" in out
        server.answers["authorization"] = {"no_match": "deny", "cache": {"enable": True, "ttl": "1m"}}
        # The API's address is plain and beyond loopback here: one rule fails, in JSON as well.
        assert main([*argv, "-o", "json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert [one["rule"] for one in found["items"] if one["result"] == "fail"] == ["emqx/api-over-tls"]
        assert found["counts"]["unknown"] > 10
        assert main([*argv, "--dashboard-user", "admin"]) == 2
        password = tmp_path / "password"
        password.write_text("secret\n")
        assert main([*argv, "--dashboard-user", "a", "--dashboard-password-file", str(password)]) == 1
        assert server.logins[-1] == DashboardLogin("a", "secret")


def test_a_policy_for_the_other_subject_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = "rules:\n  - {id: one, title: One, severity: low, check: 'max_inflight > 1'%s}\n"
    path = tmp_path / "broker.yaml"
    path.write_text("policy: mine\nsubject: broker\nversion: 1\ntitle: Mine\n" + rule % "")
    assert main(["policy", "check", str(path)]) == 1
    assert "this policy evaluates the broker" in capsys.readouterr().err
    assert main(["policy", "check", "--subject", "broker", str(path)]) == 0
    path.write_text(
        "policy: mine\nsubject: broker\nversion: 1\ntitle: Mine\n" + rule % ", on_fail: {contain: isolated}"
    )
    assert main(["policy", "check", "--subject", "broker", str(path)]) == 1
    assert "a broker is never changed by a policy" in capsys.readouterr().err
    path.write_text("policy: mine\nversion: 1\ntitle: Mine\n" + rule % "")
    assert main(["policy", "check", "--subject", "broker", str(path)]) == 1
    assert "a policy for the broker has `subject: broker`" in capsys.readouterr().err
