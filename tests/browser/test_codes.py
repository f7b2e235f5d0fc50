"""One-time codes, recovery codes and the first password, in a browser with its scripts off."""

from functools import partial
from pathlib import Path

import pyotp
import trustme

from controller.domain.accounts.secret_text import digest_of
from tests.support.api_server import ApiServer
from tests.support.browser import PASSWORD, put_account
from tests.support.browsing import OpenPage, add_app, expect, expect_heading, log_in, log_out
from tests.support.clocks import START

CODE = "a-one-time-code"


def test_the_first_administrator_sets_password_and_factor_by_a_code(server: ApiServer, open_page: OpenPage) -> None:
    server.call(partial(put_account, name="anna", setup_digest=digest_of(CODE), setup_until=START + 60))
    page = open_page(f"{server.local}/setup?code={CODE}", java_script_enabled=False)
    for password in ("passwordpassword", "a good long sentence"):
        page.get_by_label("New password").fill(password)
        page.get_by_label("The same password again").fill(password)
        page.get_by_role("button", name="Set password").click()
    expect_heading(page, "Your account")
    key, _ = add_app(page)
    log_out(page)
    log_in(page, "anna", "a good long sentence")
    page.get_by_label("Six digits").fill(pyotp.TOTP(key).at(int(START) + 30))
    page.get_by_role("button", name="Confirm").click()
    expect_heading(page, "Your account")
    again = open_page(f"{server.local}/setup?code={CODE}", java_script_enabled=False)
    again.get_by_label("New password").fill("another good sentence")
    again.get_by_label("The same password again").fill("another good sentence")
    again.get_by_role("button", name="Set password").click()
    expect(again.get_by_role("alert")).to_contain_text("was used, or is over")


def test_a_recovery_code_stands_in_once_and_a_session_is_ended(server: ApiServer, open_page: OpenPage) -> None:
    server.call(partial(put_account, name="anna"))
    first = open_page(f"{server.local}/login", java_script_enabled=False)
    log_in(first, "anna", PASSWORD)
    _, codes = add_app(first)
    other = open_page(f"{server.local}/login", java_script_enabled=False)
    log_in(other, "anna", PASSWORD)
    other.get_by_text("Use a recovery code").click()
    other.get_by_label("One of the ten codes").fill(codes[0])
    other.get_by_role("button", name="Use this code").click()
    expect(other.get_by_text("Recovery codes left: 9.")).to_be_visible()
    other.get_by_role("row").filter(has_not_text="(this one)").get_by_role("button", name="End").click()
    expect_heading(other, "Your account")
    first.reload()
    expect_heading(first, "Log in")


def test_at_an_ip_address_the_page_offers_an_app_and_says_why(tmp_path: Path, open_page: OpenPage) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    with ApiServer(tmp_path / "cordon.db", {}, **tls) as server:
        server.call(partial(put_account, name="anna"))
        page = open_page(f"{server.url}/login", ignore_https_errors=True)
        log_in(page, "anna", PASSWORD)
        expect(page.get_by_text("opened at the address 127.0.0.1")).to_be_visible()
        expect(page.get_by_role("link", name="Add a passkey")).to_have_count(0)
        add_app(page)
