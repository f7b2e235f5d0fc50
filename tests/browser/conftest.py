"""A controller on a real socket, and browsers that report what the pages must never do."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from tests.support.api_server import ApiServer
from tests.support.browsing import OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS: Final = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path is not None, "the browser suite needs the system's Chromium: apt-get install chromium"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path / "cordon.db", {}) as made:
        yield made


@pytest.fixture
def open_page(chromium: "Browser") -> Iterator[OpenPage]:
    """Opens a page in a browser of its own; it must ask no other host for anything, and violate no policy."""
    problems: list[str] = []
    contexts: list[Any] = []

    def opened(url: str, **options: Any) -> "Page":
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        host = urlsplit(url).netloc

        def note(is_problem: bool, text: str) -> None:
            problems.extend([text] if is_problem else ())

        page.on("request", lambda one: note(urlsplit(one.url).netloc != host, f"request: {one.url}"))
        page.on("console", lambda one: note("Content Security Policy" in one.text, one.text))
        page.on("pageerror", lambda error: note(True, str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
