"""People who sign in through two OpenID providers, in Chromium: oidc-provider on Node.js, and oidc-provider-mock."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from controller.adapters.oidc.provider import CALLBACK
from controller.console.sso import COOKIE
from controller.domain.accounts.account import Account
from controller.domain.accounts.session import Session
from tests.support.api import Api
from tests.support.api_server import ApiServer
from tests.support.browsing import expect_heading
from tests.support.mosquitto import free_port
from tests.support.oidc import CLIENT, SECRET, real_provider
from tests.support.project_tree import ROOT
from tests.support.sso import sso_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SOURCE: Final = Path(__file__).parent / "oidc_provider" / "provider.mjs"
PACKAGES: Final = ROOT / ".cache" / "oidc-provider"
PEOPLE: Final[dict[str, dict[str, Any]]] = {
    "u-1": {"preferred_username": "anna", "groups": ["ops"]},
    "u-2": {"preferred_username": "bert", "groups": ["staff"]},
}


@dataclass
class Site:
    """A controller with single sign-on, and how a person says at the provider who they are."""

    server: ApiServer
    origin: str
    prove: Callable[["Page", str], None]

    def sessions(self) -> list[tuple[Account, Session]]:
        """Of everybody who came by the provider."""

        async def look(one: Api) -> list[tuple[Account, Session]]:
            accounts = one.services.accounts.store
            people = [account for account in await accounts.accounts() if account.subject]
            return [(account, session) for account in people for session in await accounts.sessions(account.account_id)]

        return self.server.call(look)


@contextlib.contextmanager
def _node_provider(origin: str) -> Iterator[str]:
    assert (PACKAGES / "done").exists(), "run tools/get-oidc-provider.sh first, as `make test-browser` does"
    port = free_port()
    made = {"port": port, "redirect_uri": origin + CALLBACK, "client_id": CLIENT, "client_secret": SECRET}
    script = PACKAGES / SOURCE.name  # beside its packages, where Node.js looks for them
    shutil.copyfile(SOURCE, script)
    command = [str(Path(sys.executable).parent / "node"), str(script), json.dumps({**made, "people": PEOPLE})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield f"http://localhost:{port}"
        finally:
            process.kill()


def _mock_provider(_origin: str) -> AbstractContextManager[str]:
    return real_provider(
        {name: {**claims, "auth_time": int(time.time()), "acr": "mfa"} for name, claims in PEOPLE.items()}
    )


def _prove_to_node(page: "Page", who: str) -> None:
    page.get_by_label("Who").fill(who)
    page.get_by_label("with a second factor").check()
    page.get_by_role("button", name="Sign in").click()


def _prove_to_mock(page: "Page", who: str) -> None:
    page.get_by_role("button", name=who).first.click()


PROVIDERS: Final = {"oidc-provider": (_node_provider, _prove_to_node), "mock": (_mock_provider, _prove_to_mock)}


@pytest.fixture(params=PROVIDERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    provider, prove = PROVIDERS[request.param]
    server = ApiServer(tmp_path / "cordon.db", {})
    origin = server.url.replace("127.0.0.1", "localhost")
    with provider(origin) as issuer:
        server.options["accounts"] = sso_table(issuer, tmp_path, origin)
        with server:
            server.call(_now)
            yield Site(server, origin, prove)


async def _now(one: Api) -> None:
    """The provider's clock is the machine's."""
    one.harness.clock.at = time.time()


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    context = chromium.new_context()
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def test_a_person_signs_in_and_steps_up(site: Site, page: "Page") -> None:
    page.goto(f"{site.origin}/login")
    page.get_by_role("link", name="Continue with single sign-on").click()
    site.prove(page, "u-1")
    expect_heading(page, "Your account")
    ((account, first),) = site.sessions()
    assert (account.name, account.role) == ("anna", "operator")
    assert (first.factor, first.factor_at > 0) == ("sso", True)
    page.goto(f"{site.origin}/login/sso?return_to=/me&step_up=1")
    site.prove(page, "u-1")
    expect_heading(page, "Your account")
    ((_, second),) = site.sessions()
    assert second.digest != first.digest
    assert second.factor_at >= first.factor_at


def test_a_person_without_a_role_stays_outside(site: Site, page: "Page") -> None:
    page.goto(f"{site.origin}/login/sso")
    site.prove(page, "u-2")
    expect_heading(page, "You are not signed in")
    assert site.sessions() == []


def test_the_answer_to_one_browser_does_nothing_in_another(site: Site, page: "Page") -> None:
    page.goto(f"{site.origin}/login/sso")
    page.context.clear_cookies(name=COOKIE)  # what another browser does not have
    site.prove(page, "u-1")
    expect_heading(page, "You are not signed in")
    assert site.sessions() == []
