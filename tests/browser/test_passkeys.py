"""Passkeys of Chromium's virtual authenticator."""

from functools import partial

from tests.support.api_server import ApiServer
from tests.support.browser import PASSWORD, put_account
from tests.support.browsing import OpenPage, add_authenticator, expect, expect_heading, log_in, log_out


def test_a_passkey_is_registered_and_used(server: ApiServer, open_page: OpenPage) -> None:
    server.call(partial(put_account, name="anna"))
    page = open_page(f"{server.local}/login")
    add_authenticator(page)
    log_in(page, "anna", PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("no second factor")
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Name, such as").fill("laptop")
    page.get_by_role("button", name="Register a passkey").click()
    expect_heading(page, "Recovery codes")
    page.get_by_role("link", name="I have kept them").click()
    expect(page.get_by_role("row", name="laptop")).to_contain_text("passkey")
    log_out(page)
    log_in(page, "anna", PASSWORD)
    expect_heading(page, "Second factor")
    page.get_by_role("button", name="Use a passkey").click()
    expect_heading(page, "Your account")
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Name, such as").fill("the same one")
    page.get_by_role("button", name="Register a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("The browser gave no passkey")


def test_a_browser_without_the_passkey_does_not_get_in(server: ApiServer, open_page: OpenPage) -> None:
    server.call(partial(put_account, name="anna"))
    owner = open_page(f"{server.local}/login")
    add_authenticator(owner)
    log_in(owner, "anna", PASSWORD)
    owner.get_by_role("link", name="Add a passkey").click()
    owner.get_by_label("Name, such as").fill("laptop")
    owner.get_by_role("button", name="Register a passkey").click()
    expect_heading(owner, "Recovery codes")
    thief = open_page(f"{server.local}/login")
    add_authenticator(thief)
    log_in(thief, "anna", PASSWORD)
    expect_heading(thief, "Second factor")
    thief.get_by_role("button", name="Use a passkey").click()
    expect(thief.get_by_role("alert")).to_contain_text("The browser gave no passkey")
    thief.goto(f"{server.local}/me")
    expect_heading(thief, "Second factor")
