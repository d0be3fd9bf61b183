"""Small helpers for tests that open a page in Chromium, cut off from the network.

Used as ``with page_of(html, tmp_path) as page``. Debian's Chromium is driven through playwright; a machine that
lacks either skips the tests and says why.
"""

import contextlib
import shutil

import pytest


def chromium_path():
    """Where Chromium is, or a skip that says what is missing."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return path


@contextlib.contextmanager
def browser():
    """A headless Chromium for as long as the block runs."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    path = chromium_path()
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


class Complaints(list):
    """Everything a page should not have done: errors, warnings, requests for anything but files."""


@contextlib.contextmanager
def open_page(chromium, path, width=1280, height=900, scripts=True, theme="light"):
    """Open a file with the network blocked; on leaving, fail if the page complained.

    Yields playwright's ``Page``; ``page.complaints`` lists what went wrong so far.
    """
    context = chromium.new_context(
        viewport={"width": width, "height": height}, java_script_enabled=scripts, offline=True
    )
    page = context.new_page()
    page.complaints = complaints = Complaints()

    def only_files(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            return route.continue_()
        complaints.append(f"asked for {route.request.url}")
        return route.abort()

    page.route("**/*", only_files)
    page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}") if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    if theme == "dark" and scripts:
        page.add_init_script("document.documentElement.dataset.theme = 'dark'")
    try:
        page.goto(path.as_uri())
        yield page
        assert not complaints, "\n".join(complaints)
    finally:
        context.close()


def write_page(path, *fragments, title="test"):
    """A bare page that holds the fragments; light, or dark as ``html[data-theme]`` says."""
    style = (
        "body{font-family:sans-serif;margin:1rem}"
        "html[data-theme=dark] body{background:#14181e;color:#ced6dd;color-scheme:dark}"
    )
    body = "\n".join(fragments)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>{body}</body></html>',
        encoding="utf-8",
    )
    return path
