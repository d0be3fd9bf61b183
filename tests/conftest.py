"""What the tests share: reproducible draws, the built book, and a browser that cannot reach any network."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_scripts"))    # the scripts of the book; they import each other
import headless  # noqa: E402

# The same examples in every run, and no time limit for a single example on a busy machine.
settings.register_profile("book", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "book"))


@pytest.fixture(scope="session")
def root():
    """The repository's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def html(root):
    """The built book. `make test` builds it first and says so with REQUIRE_BOOK; elsewhere its tests may skip."""
    folder = root / "_build" / "html"
    if not (folder / "book" / "index.html").exists():
        if os.environ.get("REQUIRE_BOOK"):
            pytest.fail("_build/html is not there: the book's build failed or was not run")
        pytest.skip("the book is not built here; `make book` builds it")
    return folder


@pytest.fixture(scope="session")
def chromium():
    """Where a Chromium is; CHROMIUM names one that is not on the path."""
    found = headless.find()
    if found is None:
        pytest.skip(headless.MISSING)
    return found


@pytest.fixture(scope="session")
def browser(chromium):
    """A headless Chromium under playwright, once per worker."""
    pytest.importorskip("playwright.sync_api")
    with headless.chromium() as running:
        yield running


@pytest.fixture
def page(browser):
    """A page with the network cut: what it asks of another machine fails and is listed in `page.asked`, and so is
    every uncaught error of its scripts in `page.errors`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    opened = context.new_page()
    opened.asked, opened.errors = [], []

    def decide(route):
        if route.request.url.startswith(("file:", "data:", "blob:", "about:")):
            route.continue_()
        else:
            opened.asked.append(route.request.url)
            route.abort()

    context.route("**/*", decide)
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    yield opened
    context.close()
