"""Passkeys of Chromium's virtual authenticator."""

from controller.api.session_cookie import COOKIE
from tests.support.api_server import ApiServer
from tests.support.browsing import OpenPage, add_authenticator, expect, expect_heading
from tests.support.visitors import begin_session


def test_a_passkey_is_registered_and_used(server: ApiServer, open_page: OpenPage) -> None:
    origin = server.url.replace("127.0.0.1", "localhost")
    page = open_page(f"{origin}/login")
    add_authenticator(page)
    secret = server.call(begin_session)
    page.context.add_cookies([{"name": COOKIE, "value": secret, "url": "https://localhost", "secure": True}])
    page.goto(f"{origin}/me")
    expect(page.get_by_role("alert")).to_contain_text("no second factor")
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Name, such as").fill("laptop")
    page.get_by_role("button", name="Register a passkey").click()
    expect_heading(page, "Recovery codes")
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("row", name="laptop")).to_contain_text("passkey")
    secret = server.call(begin_session)
    page.context.add_cookies([{"name": COOKIE, "value": secret, "url": "https://localhost", "secure": True}])
    page.goto(f"{origin}/me")
    expect_heading(page, "Second factor")
    page.get_by_role("button", name="Use a passkey").click()
    expect_heading(page, "Your account")
