"""Pages in Chromium. Playwright is of an extra of its own: it is imported only when a test of `tests/browser` runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyotp

from tests.support.clocks import START

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]  # the address, and options of the browser


def expect(what: Any) -> Any:
    """Playwright's `expect`: waits for what is asked of a page or a part of it."""
    from playwright.sync_api import expect as look

    return look(what)


def expect_heading(page: "Page", text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def add_authenticator(page: "Page") -> None:
    """Gives the browser a platform authenticator whose user is always there; only once a page is loaded."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def log_in(page: "Page", name: str, password: str) -> None:
    """Fills the form of `/login`, where the page is."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def log_out(page: "Page") -> None:
    page.get_by_role("button", name="Log out").click()
    expect_heading(page, "Log in")


def add_app(page: "Page") -> tuple[str, list[str]]:
    """Registers an authenticator app as the first factor, from `/me`; returns its key and the recovery codes."""
    page.get_by_role("button", name="Add an authenticator app").click()
    key = page.locator("#key").inner_text()
    page.get_by_label("Six digits").fill(pyotp.TOTP(key).at(int(START)))
    page.get_by_role("button", name="Add").click()
    expect_heading(page, "Recovery codes")
    codes = page.locator(".codes code").all_inner_texts()
    page.get_by_role("link", name="I have kept them").click()
    expect_heading(page, "Your account")
    return key, codes
