"""Small helpers for tests that open one page in Chromium, cut off from the network.

They take the ``browser`` fixture, which skips with a reason where there is no Chromium.
"""

import contextlib


def write_page(path, *fragments, theme="light"):
    """Write a bare page that holds the fragments, with the theme said as the book's theme says it."""
    style = (
        "body{font-family:sans-serif;margin:1rem;background:#fff;color:#222}"
        "html[data-theme=dark] body{background:#14181e;color:#ced6dd;color-scheme:dark}"
    )
    body = "\n".join(fragments)
    path.write_text(
        f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>test</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head>'
        f"<body>{body}</body></html>",
        encoding="utf-8",
    )
    return path


@contextlib.contextmanager
def open_page(browser, path, width=1280, height=900, scripts=True):
    """Open a file with the network blocked; leaving the block fails if the page complained.

    Yields playwright's ``Page``. ``page.complaints`` lists errors and warnings of the console, uncaught errors, and
    requests for anything but the file itself.
    """
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, java_script_enabled=scripts, offline=True)
    page = context.new_page()
    page.complaints = []

    def only_this_file(route):
        if route.request.url.startswith((path.as_uri(), "data:", "blob:")):
            return route.continue_()
        page.complaints.append(f"asked for {route.request.url}")
        return route.abort()

    page.route("**/*", only_this_file)
    page.on("console", lambda m: page.complaints.append(m.text) if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    try:
        page.goto(path.as_uri())
        yield page
        assert not page.complaints, "\n".join(page.complaints)
    finally:
        context.close()
