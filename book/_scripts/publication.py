"""A Sphinx extension: what the pages need to be a published site.

The book's address follows from `repository.url` in _config.yml, as GitHub Pages makes it: https://OWNER.github.io/REPOSITORY/.
Where it is published under another, the environment variable BOOK_URL names that one. From the address come the canonical links,
the sitemap, the tags that a shared link shows itself by, and 404.html. Everything else on a page stays relative: a copy on a
disk works without any address.

Every page's foot says which version of the library it describes and of which day the last commit is. That day, and not the day
of the build, so that the same commit gives the same pages; SOURCE_DATE_EPOCH is taken first, as elsewhere, and without both the
day is left out.

With BOOK_DOWNLOADS=1 the first page offers the downloads that `make site` puts beside the pages. Other builds have none to offer.
"""

import html
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from sphinx.errors import ConfigError

DESCRIPTION = 200    # characters; what search engines and shared links show at most
CARD = "_static/card.png"
CARD_SAYS = "A small network; three of its neurons are switched off and have lost their connections."
LOST = """<h1>There is no page here</h1>
<p>The address leads nowhere: the page was renamed, or the link to it was mistyped.</p>
<form class="lost-search" action="search.html" method="get" role="search">
<label for="lost-search">Search the book</label>
<input id="lost-search" class="form-control" type="search" name="q">
<button class="btn btn-primary" type="submit">Search</button>
</form>
<p>Or begin at the <a class="reference internal" href="{first}">first page</a>, or choose a chapter from the contents.</p>
"""


def address(repository, override=""):
    """Where the book is published, with a slash at its end."""
    if override:
        if not re.match(r"https?://[^/]+", override):
            raise ConfigError(f"BOOK_URL={override!r} is no address; it has to begin with https:// or http://.")
        return override.rstrip("/") + "/"
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", repository)
    if not found:
        raise ConfigError(f"repository.url={repository!r} is not https://github.com/OWNER/REPOSITORY, so the book's address does not "
                          "follow from it; name the address in the environment variable BOOK_URL.")
    host, name = f"{found[1].lower()}.github.io", found[2]
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def book_address(root):
    """The address, from the files of the repository at ``root`` and the environment."""
    repository = yaml.safe_load(Path(root, "_config.yml").read_text(encoding="utf-8"))["repository"]
    return address(repository["url"], os.environ.get("BOOK_URL", ""))


def library_version(root):
    """The library's version, read and not imported: importing it would import PyTorch at every build."""
    return re.search(r'^__version__ = "(.+)"', Path(root, "switcher_lib", "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[1]


def commit_time(root):
    """When the last commit was made, in UTC, or None where nobody can tell: without git, or in an unpacked archive."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if not seconds and Path(root, ".git").exists():
        try:
            told = subprocess.run(["git", "-C", root, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False)
        except OSError:
            return None
        seconds = told.stdout.strip()
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def in_words(time):
    return f"{time.day} {time:%B %Y}"


def description(doctree):
    """The sentences that a page begins with, as many whole ones as fit into DESCRIPTION characters; "" where it begins otherwise."""
    text = ""
    for element in doctree.next_node(nodes.section).children[1:]:
        formulas = [formula.astext() for formula in element.findall(nodes.math)]
        if isinstance(element, nodes.paragraph) and not any("\\" in formula for formula in formulas):
            text = f"{text} {' '.join(element.astext().split())}".strip()
        elif text:
            break
    sentences = re.match(rf".{{20,{DESCRIPTION - 1}}}[.?!](?=\s|$)", text)
    return sentences[0] if sentences else ""


# --------------------------------------------------------------------------------------------------------- Sphinx's events

def configure(app, config):
    base = book_address(app.srcdir)
    config.project = config.html_title
    config.version = config.release = library_version(app.srcdir)
    config.html_baseurl = config.ogp_site_url = base
    config.ogp_image, config.ogp_image_alt = CARD, CARD_SAYS
    config.ogp_enable_meta_description = False    # ours is in the page's head already
    config.ogp_custom_meta_tags = ('<meta property="og:image:width" content="1200" />', '<meta property="og:image:height" content="630" />')
    config.book_downloads = os.environ.get("BOOK_DOWNLOADS", "") not in ("", "0")


def before_tags(app, pagename, templatename, context, doctree):
    """The page's description, before sphinxext.opengraph takes one of its own making; the icon; the page's foot."""
    if doctree:
        told = description(doctree) or f"{app.env.titles[pagename].astext()}: a page of the book {app.config.project}."
        context["meta"] = {"og:description": told, **(context.get("meta") or {})}
    icon = context["pathto"]("_static/mark.png", 1)
    context["metatags"] = (context.get("metatags", "") + f'<link rel="icon" type="image/png" sizes="180x180" href="{icon}" />\n'
                           f'<link rel="apple-touch-icon" href="{icon}" />\n')
    time = commit_time(app.srcdir)
    day = f', <time datetime="{time:%Y-%m-%d}">{in_words(time)}</time>' if time else ""
    context["theme_extra_footer"] = f"Version {app.config.version}{day}."
    if pagename == app.config.root_doc and app.config.book_downloads:
        context["body"] = offer(context["body"], app.config.html_baseurl, app.config.version)


def offer(body, base, version):
    """The page with a line below its title that leads to what `make site` puts into the site's downloads/."""
    line = (f'<p class="book-offline">To read without a network: <a href="{base}downloads/reading-the-weights.zip">these pages as a zip</a> '
            f'(unpack it, open <code>index.html</code>) or <a href="{base}downloads/reading-the-weights.pdf">the book as one PDF</a>; '
            f"version {version}.</p>")
    return re.sub(r"</h1>", lambda end: end[0] + line, body, count=1)


def after_tags(app, pagename, templatename, context, doctree):
    """What sphinxext.opengraph leaves out: pages without a text of their own, a description for search engines, Twitter's names."""
    if not doctree:
        title = html.escape(re.sub(r"<[^>]+>", "", context.get("title") or app.config.project))
        context["metatags"] += "\n".join([
            f'<meta property="og:title" content="{title}" />', '<meta property="og:type" content="website" />',
            f'<meta property="og:site_name" content="{html.escape(app.config.project)}" />',
            f'<meta property="og:description" content="A page of the book {html.escape(app.config.project)}." />',
            f'<meta property="og:image" content="{app.config.html_baseurl}{CARD}" />',
            f'<meta property="og:image:alt" content="{html.escape(CARD_SAYS)}" />', *app.config.ogp_custom_meta_tags, ""])
    tags = dict(re.findall(r'<meta property="og:(title|description|image|image:alt)" content="([^"]*)" />', context["metatags"]))
    context["metatags"] += "\n".join([
        f'<meta name="description" content="{tags["description"]}" />', '<meta name="twitter:card" content="summary_large_image" />',
        *(f'<meta name="twitter:{name}" content="{content}" />' for name, content in tags.items()), ""])


def page_for_lost_readers(app):
    first = app.builder.get_target_uri(app.config.root_doc)
    yield "404", {"title": "There is no page here", "body": LOST.format(first=first)}, "page.html"


def finish(app, error):
    """404.html gets absolute paths, as it is shown at any depth; then the entrance, the sitemap and what crawlers read first."""
    if error or app.builder.format != "html":
        return
    out, base = Path(app.outdir), app.config.html_baseurl
    root = urlsplit(base).path
    lost = (out / "404.html").read_text(encoding="utf-8")
    lost = re.sub(r'\b(href|src|action)="(?!#|/|[a-z]+:)(?:\./)?', rf'\1="{root}', lost)
    lost = lost.replace('data-content_root="./"', f'data-content_root="{root}"')
    (out / "404.html").write_text(re.sub(r' *<link rel="canonical"[^>]*>\n', "", lost), encoding="utf-8")

    first = app.builder.get_target_uri(app.config.root_doc)
    tags = re.findall(r'<meta (?:property="og:|name="(?:twitter:|description"))[^>]*>|<link rel="canonical"[^>]*>',
                      (out / first).read_text(encoding="utf-8"))
    (out / "index.html").write_text("\n".join([
        f'<!DOCTYPE html>\n<html lang="{app.config.language}">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="refresh" content="0; url={first}">\n<title>{html.escape(app.config.project)}</title>', *tags,
        f'</head>\n<body><main><p><a href="{first}">{html.escape(app.config.project)}</a></p></main></body>\n</html>', ""]), encoding="utf-8")

    pages = sorted(base + app.builder.get_target_uri(name) for name in app.env.found_docs)
    (out / "sitemap.xml").write_text("\n".join([
        '<?xml version="1.0" encoding="UTF-8"?>', '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">',
        *(f"<url><loc>{html.escape(page)}</loc></url>" for page in pages), "</urlset>", ""]), encoding="utf-8")
    (out / "robots.txt").write_text(f"User-agent: *\nAllow: /\n\nSitemap: {base}sitemap.xml\n", encoding="utf-8")


def setup(app):
    app.add_config_value("book_downloads", False, "html", types=frozenset({bool}))
    app.connect("config-inited", configure, priority=900)    # after the theme and Jupyter Book
    app.connect("html-page-context", before_tags, priority=400)    # before sphinxext.opengraph's 500
    app.connect("html-page-context", after_tags, priority=900)
    app.connect("html-collect-pages", page_for_lost_readers)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
