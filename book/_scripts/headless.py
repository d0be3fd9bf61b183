"""A headless Chromium, for what pages have to be opened for: printing, recording, tests."""

import contextlib
import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "no Chromium here: install Debian's chromium, or name one in CHROMIUM"


def find():
    """Return where a Chromium is, or None; the environment variable CHROMIUM names one that is not on the path."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CHROMIUM", ""), *NAMES)))), None)


@contextlib.contextmanager
def chromium():
    """Run one under playwright, closed afterwards."""
    from playwright.sync_api import sync_playwright

    found = find()
    if found is None:
        raise SystemExit(f"This needs a browser, and there is {MISSING}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
