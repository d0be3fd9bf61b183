"""Print the built pages as one PDF.

    python book/_scripts/make_pdf.py                                  # what `make pdf` does after `make book`
    python book/_scripts/make_pdf.py --pages 05-mnist notation        # some pages only: quick, to look at the style

The pages of the table of contents become one document: title page, contents, then page after page, with links between pages turned into
links inside the document. A headless Chromium sets its formulas with the book's own MathJax and prints it with book/_static/print.css;
no network, no LaTeX. It prints twice: only the first printing tells which page each chapter is on.

An explorer stands as its first picture, with a link to the page where it works. Answers and solutions are open.
"""

import argparse
import base64
import contextlib
import html
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import matplotlib
import pikepdf
import yaml
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).parent))
import headless
import publication

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 643    # CSS pixels between the margins of an A4 page, as print.css sets them: 210 mm less 2 x 20 mm
HEIGHT = 960   # the same from top to bottom: 297 mm less 22 mm and 21 mm
AUTHORS = "The Reading the Weights contributors"
MINUTES = 10   # a busy machine is slow, not wrong
# The same letters on every machine: these come with matplotlib.
FONTS = {"Book Serif": ("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
         "Book Sans": ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique"),
         "Book Mono": ("DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique")}


def contents(toc):
    """The parts of the book in order, as (caption, [page names])."""
    told = yaml.safe_load(Path(toc).read_text(encoding="utf-8"))
    return [("", [told["root"]]), *((part["caption"], [entry["file"] for entry in part["chapters"]]) for part in told["parts"])]


def anchor(name, fragment=""):
    """What a page, or a place on it, is called in the one document."""
    return f"{Path(name).name}--{fragment}" if fragment else Path(name).name


class Assembly:
    """The one document, made of built pages.

    Parameters
    ----------
    site : Path
        The built pages.
    parts : list of (str, list of str)
        Captions and the pages below them, such as "book/05-mnist".
    base : str
        Where the book is published: what a link leads to that has no place in the document.
    """

    def __init__(self, site, parts, base):
        self.site, self.parts, self.base = Path(site).resolve(), parts, base
        self.names = [name for _, names in parts for name in names]
        self.titles, self.sheets = {}, {}

    def link(self, name, target):
        """Where a link of a page leads in the document."""
        if urlsplit(target).scheme or target.startswith("#play:"):
            return urljoin(f"{self.base}{name}.html", target)
        path, _, fragment = target.partition("#")
        other = os.path.normpath(os.path.join(os.path.dirname(name), path)).replace(os.sep, "/") if path else f"{name}.html"
        if other.removesuffix(".html") in self.names:
            return "#" + anchor(other.removesuffix(".html"), unquote(fragment))
        return urljoin(self.base, other) + ("#" + fragment if fragment else "")

    def page(self, name):
        """A page's article, with names and links that hold in the document; nothing that needs a script or a hand."""
        soup = BeautifulSoup((self.site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        for sheet in soup.head.select('link[rel="stylesheet"]'):
            self.sheets[urljoin(f"{self.site.as_uri()}/{name}.html", sheet["href"].split("?")[0])] = None
        article = soup.select_one("article.bd-article")
        for unwanted in article.select("a.headerlink, script, noscript, link, button, .book-offline"):
            unwanted.decompose()
        for folded in article.select("details"):
            folded["open"] = ""
        for explorer in article.select(".sl-explorer"):
            caption, place = explorer.figcaption, f"{self.base}{name}.html#{explorer['id']}"
            caption.string = caption.get_text().replace(" With scripts switched on, you can change it here.", "")
            caption.append(BeautifulSoup(f' <a class="pdf-explorer" href="{place}">Change it yourself: open this explorer on the book’s site.</a>',
                                         "html.parser"))
        seen = set()
        for element in article.find_all(True):
            if element.get("id") in seen:    # sphinx-exercise gives all contents of a page one name
                del element["id"]
            seen.add(element.get("id"))
            for attribute in ("id", "for"):
                if element.get(attribute):
                    element[attribute] = anchor(name, element[attribute])
            for attribute in ("aria-labelledby", "aria-describedby", "aria-controls"):
                if element.get(attribute):
                    element[attribute] = " ".join(anchor(name, one) for one in element[attribute].split())
            if element.name == "a" and element.get("href"):
                element["href"] = self.link(name, element["href"])
            elif element.name == "use" and element.get("href"):
                element["href"] = f"#{anchor(name, element['href'][1:])}"
            elif element.name == "img" and not element["src"].startswith("data:"):
                element["src"] = urljoin(f"{self.site.as_uri()}/{name}.html", element["src"])
        self.titles[name] = " ".join(article.h1.get_text().split())
        return f'<section class="pdf-page bd-article" id="{anchor(name)}">{article.decode_contents()}</section>'

    def document(self, version, day):
        bodies = [self.page(name) for name in self.names]
        book = self.titles[self.names[0]]
        running = "\n".join(f'[id="{anchor(name)}"] {{ page: p{i} }} @page p{i} {{ @top-center {{ content: {css_string(self.titles[name])} }} }}'
                            for i, name in enumerate(self.names))
        entries = "".join(
            (f"<li class='pdf-part'>{html.escape(caption)}</li>" if caption else "") + "".join(
                f'<li><a href="#{anchor(name)}"><span>{html.escape(self.titles[name])}</span><span class="pdf-number" data-of="{anchor(name)}">'
                "&#8199;&#8199;&#8199;</span></a></li>" for name in names)
            for caption, names in self.parts)
        ttf = Path(matplotlib.get_data_path(), "fonts", "ttf")
        faces = "".join(f'@font-face {{ font-family: "{family}"; src: url("{(ttf / f"{file}.ttf").as_uri()}"); '
                        f'font-weight: {"bold" if i > 1 else "normal"}; font-style: {"italic" if i % 2 else "normal"} }}\n'
                        for family, files in FONTS.items() for i, file in enumerate(files))
        sheets = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in self.sheets)
        mark = (ROOT / "book" / "_static" / "mark.svg").read_text(encoding="utf-8")
        subtitle = "How a second network decides which parts of a network are needed, and how you check that it is right"
        return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8"><title>{html.escape(book)}</title>
<meta name="author" content="{AUTHORS}">{sheets}<style>{faces}{running}</style>
<script>window.MathJax = {{options: {{enableMenu: false, processHtmlClass: "tex2jax_process|mathjax_process|math|output_area"}}}}</script>
<script defer src="{(self.site / '_static' / 'vendor' / 'mathjax' / 'tex-svg-full.js').as_uri()}"></script></head>
<body class="pdf">
<section class="pdf-title">{mark}<p class="pdf-book">{html.escape(book)}</p><p class="pdf-subtitle">{subtitle}</p>
<p class="pdf-imprint">{AUTHORS}<br>Version {version}{", " + day if day else ""}<br>
<a href="{self.base}">{self.base}</a><br>Text and figures: CC BY 4.0. Code: MIT licence.</p></section>
<section class="pdf-contents" id="pdf-contents"><h1>Contents</h1><ul>{entries}</ul></section>
{"".join(bodies)}
</body></html>"""


def css_string(text):
    return '"' + re.sub(r'["\\]', lambda found: "\\" + found[0], text) + '"'


# What is wider than the page is made smaller, what is small is kept on one page.
FIT = """([width, height]) => {
  for (const wide of document.querySelectorAll(".pdf-page table, .pdf-page .sl-first svg")) {
    const room = wide.parentElement.closest("div, section, figure, details, td, dd, li").getBoundingClientRect().width;
    const needed = Math.max(wide.scrollWidth || 0, wide.getBoundingClientRect().width);
    if (needed > room + 1) wide.style.zoom = Math.max(0.45, room / needed);
  }
  for (const block of document.querySelectorAll(
      ".pdf-page table, .pdf-page .highlight, .pdf-page .admonition, .pdf-page details, .pdf-page .output, .pdf-page dl.py > dt"))
    if (block.getBoundingClientRect().height < 0.35 * height) block.classList.add("pdf-whole");
}"""


def playground(context, assembly):
    """A picture of the page that is nothing but scripts, as an HTML fragment; "" where that page is not wanted."""
    name = "book/playground"
    if name not in assembly.names:
        return ""
    page = context.new_page()
    page.set_viewport_size({"width": 1000, "height": 1400})
    page.goto((assembly.site / f"{name}.html").as_uri(), wait_until="load")
    picture = base64.b64encode(page.locator("#playground").screenshot(type="png")).decode()
    page.close()
    return (f'<figure class="sl-first"><img alt="The playground before its first step" src="data:image/png;base64,{picture}">'
            f'<figcaption>The playground before its first step. <a class="pdf-explorer" href="{assembly.base}{name}.html">'
            "Run it on the book’s site.</a></figcaption></figure>")


def only_local(route):
    """Nothing may come from a network: what is printed is what was built."""
    if route.request.url.startswith(("file:", "data:", "blob:", "about:")):
        route.continue_()
    else:
        route.abort()


def print_document(assembly, document, pdf, browser):
    """Print the document; returns nothing, and raises RuntimeError for a formula that could not be set."""
    with contextlib.closing(browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)) as context:
        context.set_default_timeout(MINUTES * 60_000)
        context.route("**/*", only_local)
        text = document.read_text(encoding="utf-8")
        document.write_text(text.replace('<div id="playground--playground"></div>', playground(context, assembly)), encoding="utf-8")
        page = context.new_page()
        page.emulate_media(media="print")
        page.goto(document.as_uri(), wait_until="load")
        page.evaluate("() => MathJax.startup.promise")
        wrong = page.locator("[data-mml-node=merror]").count()
        if wrong:
            raise RuntimeError(f"{wrong} formulas cannot be set; look for merror in {document}.")
        page.evaluate("() => document.fonts.ready")
        page.evaluate(FIT, [WIDTH, HEIGHT])
        options = {"prefer_css_page_size": True, "print_background": True, "path": pdf}
        page.pdf(**options)
        numbers = pages_of(pdf)
        page.evaluate("numbers => document.querySelectorAll('.pdf-number').forEach(e => e.textContent = numbers[e.dataset.of])", numbers)
        page.pdf(**options, outline=True, tagged=True)
    if pages_of(pdf) != numbers:
        raise RuntimeError("The contents' page numbers moved the pages that they number.")


def pages_of(pdf):
    """{name of a place: the number of the page that it is on}, counted from 1, for all places that links lead to."""
    with pikepdf.open(pdf) as told:
        numbers = {page.objgen: number for number, page in enumerate(told.pages, start=1)}
        return {name.removeprefix("/"): numbers[place[0].objgen] for name, place in told.Root.Dests.items()}


def finish(pdf, title, time):
    """What the file says of itself: the book and its authors; the day of the commit, so that the same commit says the same.

    Saved anew, it has half its size: Chromium writes the structure for screen readers uncompressed.
    """
    with pikepdf.open(pdf, allow_overwriting_input=True) as told:
        told.docinfo["/Title"], told.docinfo["/Author"], told.docinfo["/Creator"] = title, AUTHORS, f"{title}: make pdf"
        for when in ("/CreationDate", "/ModDate"):
            told.docinfo[when] = f"D:{time or datetime.now(UTC):%Y%m%d%H%M%S}Z"
        told.save(pdf, object_stream_mode=pikepdf.ObjectStreamMode.generate, recompress_flate=True, deterministic_id=True)
        return len(told.pages)


def make(site, pdf, only=(), browser=None):
    """Write the PDF of the built pages; returns its number of pages.

    Parameters
    ----------
    site : Path
        The built pages.
    pdf : Path
        The file to write; the document that it is printed from is left beside it, with the ending .html.
    only : sequence of str, default ()
        Names of pages, such as "05-mnist"; empty for the whole book.
    browser : playwright's Browser, default None
        What prints; None starts one.

    Raises
    ------
    ValueError
        For a name that is no page of the book.
    RuntimeError
        When a formula cannot be set.
    """
    parts = contents(ROOT / "_toc.yml")
    known = [Path(name).name for _, names in parts for name in names]
    if unknown := set(only) - set(known):
        raise ValueError(f"only={sorted(unknown)} are no pages of the book. Known: {', '.join(known)}.")
    if only:
        parts = [(caption, kept) for caption, names in parts if (kept := [name for name in names if Path(name).name in only])]
    time = publication.commit_time(ROOT)
    assembly = Assembly(site, parts, publication.book_address(ROOT))
    document = Path(pdf).with_suffix(".html").resolve()
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(assembly.document(publication.library_version(ROOT), publication.in_words(time) if time else ""), encoding="utf-8")
    with contextlib.nullcontext(browser) if browser else headless.chromium() as printer:
        print_document(assembly, document, Path(pdf), printer)
    return finish(Path(pdf), "Reading the Weights", time)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="the built pages")
    parser.add_argument("--pdf", type=Path, default=ROOT / "_build" / "reading-the-weights.pdf", help="the file to write")
    parser.add_argument("--pages", nargs="*", default=(), metavar="NAME", help="only these pages, such as 05-mnist")
    told = parser.parse_args()
    pages = make(told.site, told.pdf, told.pages)
    print(f"{told.pdf}: {pages} pages, {told.pdf.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
