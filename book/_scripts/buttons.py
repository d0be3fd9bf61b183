"""A Sphinx extension: every page has a button to its source on GitHub, and a notebook's shows the notebook, not its JSON."""


def show_source(app, config):
    config.html_theme_options["use_source_button"] = True    # Jupyter Book has no setting of its own for it


def buttons_of(items):
    """Yield every button of the theme's nested groups."""
    for item in items:
        yield item
        yield from buttons_of(item.get("buttons", []))


def rendered(app, pagename, templatename, context, doctree):
    if context.get("page_source_suffix") == ".ipynb":
        for button in buttons_of(context.get("header_buttons", [])):
            if "url" in button:
                button["url"] = button["url"].removesuffix("?plain=1")


def setup(app):
    app.connect("config-inited", show_source)
    app.connect("html-page-context", rendered, priority=900)    # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
