"""Pages in Chromium. Playwright is of an extra of its own: it is imported only when a test of `tests/browser` runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
