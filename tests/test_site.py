"""The pages as a published site: what stands in their heads, the page for lost readers, the offline zip and the PDF."""

import html as text
import os
import re
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from test_book import barriers, load_script

ROOT = Path(__file__).resolve().parents[1]
publication, make_site = load_script("publication"), load_script("make_site")
BASE = publication.book_address(ROOT)
PREFIX = urlsplit(BASE).path


def pages(html):
    """The built pages of the book; those of the library's source code are remade only when that changes."""
    return sorted([*html.glob("*.html"), *(html / "book").rglob("*.html")])


def heads(path):
    """What a page says of itself: {name of a meta tag: its content}, and {rel: [href]} of its links."""
    head = path.read_text(encoding="utf-8").partition("</head>")[0]
    links = {}
    for rel, href in re.findall(r'<link (?:[^>]*? )?rel="([^"]+)"[^>]*? href="([^"]+)"', head):
        links.setdefault(rel, []).append(href)
    return {name: text.unescape(content) for name, content in re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', head)}, links


# ------------------------------------------------------------------------------------------------------------- the address

@pytest.mark.parametrize("repository, expected", [
    ("https://github.com/Somebody/the-book", "https://somebody.github.io/the-book/"),
    ("https://github.com/somebody/the-book.git", "https://somebody.github.io/the-book/"),
    ("https://github.com/Somebody/Somebody.github.io/", "https://somebody.github.io/"),
])
def test_address_follows_from_the_repository(repository, expected):
    assert publication.address(repository) == expected


def test_address_can_be_named():
    assert publication.address("https://example.org/anything", "https://book.example.org") == "https://book.example.org/"
    with pytest.raises(publication.ConfigError, match="BOOK_URL='book.example.org'"):
        publication.address("https://github.com/a/b", "book.example.org")
    with pytest.raises(publication.ConfigError, match="repository.url='https://example.org/a/b'.*BOOK_URL"):
        publication.address("https://example.org/a/b")


def test_day_is_the_last_commit_s_or_none(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert publication.commit_time(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert publication.commit_time(tmp_path) is None    # no repository of git's, whatever it is
    monkeypatch.setenv("PATH", "")
    assert publication.commit_time(tmp_path) is None    # no git
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert publication.in_words(publication.commit_time(tmp_path)) == "14 November 2023"


# ------------------------------------------------------------------------------------------------------------ the pages' heads

def test_every_page_shows_itself_by_title_description_and_picture(html):
    for path in pages(html):
        meta, links = heads(path)
        for kind in ("og", "twitter"):
            assert all(meta[f"{kind}:{name}"] for name in ("title", "description", "image", "image:alt")), path.name
        assert meta["og:image"].startswith(BASE) and (html / meta["og:image"].removeprefix(BASE)).is_file(), path.name
        assert meta["twitter:card"] == "summary_large_image" and meta["og:site_name"] == "Reading the Weights", path.name
        assert 20 <= len(meta["description"]) <= publication.DESCRIPTION and "\\" not in meta["description"], path.name
        if path.name == "404.html":
            assert "canonical" not in links
        else:
            address = "book/index.html" if path == html / "index.html" else path.relative_to(html).as_posix()
            assert links["canonical"] == [BASE + address]


def test_every_page_has_an_icon_a_version_and_a_day(html):
    version, time = publication.library_version(ROOT), publication.commit_time(ROOT)
    for path in pages(html):
        if path != html / "index.html":
            icons = [href.removeprefix(PREFIX) if path.name == "404.html" else href for href in heads(path)[1]["icon"]]
            assert {Path(icon).name.partition("?")[0] for icon in icons} == {"mark.svg", "mark.png"}
            assert all((path.parent / icon.partition("?")[0]).is_file() for icon in icons), path.name
            foot = path.read_text(encoding="utf-8").rpartition("extra_footer")[2]
            assert f"Version {version}" in foot and (time is None or re.search(r"<time[^>]*>\d+ \w+ 20\d\d</time>", foot)), path.name


def test_site_map_names_every_page_of_the_table_of_contents(html):
    named = re.findall(r"<loc>(.+?)</loc>", (html / "sitemap.xml").read_text(encoding="utf-8"))
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(f"{BASE}{name}.html" for name in listed)
    assert f"Sitemap: {BASE}sitemap.xml" in (html / "robots.txt").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ the page for lost readers

class Pages(SimpleHTTPRequestHandler):
    """Serves a folder below the book's own path as GitHub Pages does: what is not there is answered with 404.html."""

    def translate_path(self, path):
        return super().translate_path("/" + urlsplit(path).path.removeprefix(PREFIX)) if path.startswith(PREFIX) else "/nowhere"

    def send_error(self, code, message=None, explain=None):
        body = Path(self.directory, "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(html):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_lost_reader_finds_home_and_search_from_any_depth(browser, served, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.add_init_script(f"localStorage.setItem('theme', '{theme}'); localStorage.setItem('mode', '{theme}')")
    page, failed = context.new_page(), []
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 400 else None)
    lost = served + "an/old/address.html"
    page.goto(lost, wait_until="load")
    assert failed == [lost]    # every style and script was found
    assert page.get_by_role("heading", name="There is no page here").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert barriers(page) == []
    failed.clear()    # axe asks for style sheets in its own way
    assert page.locator("#pst-skip-link a").get_attribute("href") == "#main-content"
    page.get_by_role("main").get_by_label("Search the book").fill("switcher")
    page.get_by_role("main").get_by_role("button", name="Search", exact=True).last.click()
    page.wait_for_selector("#search-results li")
    assert page.url == f"{served}search.html?q=switcher"
    page.goto(lost, wait_until="load")
    page.get_by_role("main").get_by_role("link", name="first page").click()
    page.wait_for_url(f"{served}book/index.html")
    assert failed == [lost]
    context.close()


# --------------------------------------------------------------------------------------------------------------- the offline zip

@pytest.fixture
def small(tmp_path):
    """A site of three files, and what only a server has a use for."""
    for name in ("b.html", "book/a.html", "_static/x.css", "404.html", "downloads/old.zip"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(name)
    return tmp_path / "site"


def test_zip_is_the_same_to_the_byte_for_the_same_pages(small, tmp_path):
    make_site.make_zip(small, tmp_path / "a.zip", "1.0")
    os.utime(small / "b.html", (1, 1))
    (small / "b.html").chmod(0o600)
    make_site.make_zip(small, tmp_path / "b.zip", "1.0")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        assert packed.namelist() == [f"reading-the-weights-1.0/{name}" for name in ("_static/x.css", "b.html", "book/a.html")]
    (small / "b.html").write_text("B.html")
    make_site.make_zip(small, tmp_path / "b.zip", "1.0")
    assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "b.zip").read_bytes()


@pytest.mark.browser
def test_unpacked_zip_works_without_a_network(html, tmp_path, page):
    """From its index.html: the first page, a chapter's explorer, the search."""
    make_site.make_zip(html, tmp_path / "book.zip", "1.0")
    with zipfile.ZipFile(tmp_path / "book.zip") as packed:
        packed.extractall(tmp_path / "a folder of mine")
    page.add_init_script("localStorage.setItem('mode', 'auto')")    # the theme complains where no mode was ever chosen
    complaints = []
    page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    top = tmp_path / "a folder of mine" / "reading-the-weights-1.0"
    page.goto((top / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    page.locator("article").get_by_role("link", name="What the switcher keeps on real digits").click()
    page.wait_for_url("**/book/05-mnist.html")
    explorer = page.locator(".sl-explorer").first
    shown = explorer.locator("[data-state]")
    before = shown.get_attribute("data-state")
    explorer.locator("input[type=range]").first.press("ArrowLeft")
    assert shown.get_attribute("data-state") != before
    page.goto(f"{(top / 'search.html').as_uri()}?q=straight-through")
    page.wait_for_selector("#search-results li")
    assert (page.asked, page.errors, complaints) == ([], [], [])


# ------------------------------------------------------------------------------------------------------------ the site

def test_site_holds_what_its_pages_offer(html, tmp_path):
    (tmp_path / "book.pdf").write_bytes(b"%PDF-")
    site, packed = make_site.make_site(html, tmp_path / "book.pdf", tmp_path / "to")
    assert (site / ".nojekyll").exists() and not {p.name for p in site.rglob("*")} & make_site.JUNK
    assert {p.relative_to(html) for p in html.rglob("*")} - {p.relative_to(site) for p in site.rglob("*")} == {
        p.relative_to(html) for p in html.rglob("*") if p.name in make_site.JUNK}
    offered = re.findall(r'href="([^"]+)"', publication.offer("<h1>x</h1>", BASE, "1.0"))
    assert [(site / link.removeprefix(BASE)).read_bytes() for link in offered] == [packed.read_bytes(), b"%PDF-"]
    for path in pages(site):
        for link in re.findall(r'<a href="([^"]+)"[^>]*\bbtn-download-source-button', path.read_text(encoding="utf-8")):
            assert (path.parent / unquote(link)).is_file(), path.name


def test_other_builds_offer_no_downloads(html):
    assert [path.name for path in pages(html) if "downloads/" in path.read_text(encoding="utf-8")] == []


def test_site_without_its_pdf_is_refused(html, tmp_path):
    with pytest.raises(FileNotFoundError, match="make pdf"):
        make_site.make_site(html, tmp_path / "book.pdf", tmp_path)
    with pytest.raises(FileNotFoundError, match="make book"):
        make_site.make_site(tmp_path, tmp_path / "book.pdf", tmp_path)


# ------------------------------------------------------------------------------------------------------------ the PDF

SOME = () if os.environ.get("FULL_PDF") else ("notation", "08-scl")    # FULL_PDF=1 prints the whole book: some minutes


@pytest.fixture(scope="module")
def pdf(html, browser, tmp_path_factory):
    """The book as one PDF, or two pages of it, with pypdf's reader."""
    pypdf = pytest.importorskip("pypdf")
    path = tmp_path_factory.mktemp("pdf") / "book.pdf"
    load_script("make_pdf").make(html, path, SOME, browser)
    return pypdf.PdfReader(path)


def flat(outline):
    for entry in outline:
        yield from flat(entry) if isinstance(entry, list) else [entry]


@pytest.fixture(scope="module")
def printed(pdf):
    return [page.extract_text() for page in pdf.pages]


@pytest.mark.browser
@pytest.mark.slow
class TestPDF:
    def test_bookmarks_lead_to_every_page_of_the_book(self, pdf, printed):
        make_pdf = load_script("make_pdf")
        marks = {" ".join(mark.title.split()): pdf.get_destination_page_number(mark) for mark in flat(pdf.outline)}
        names = SOME or [Path(name).name for _, listed in make_pdf.contents(ROOT / "_toc.yml") for name in listed]
        tops = [" ".join(mark.title.split()) for mark in pdf.outline if not isinstance(mark, list)]
        assert tops[0] == "Contents" and len(tops) == len(names) + 1
        for title in tops:
            assert " ".join(title.split()[:4]) in " ".join(printed[marks[title]].split())

    def test_contents_name_the_pages_that_their_links_lead_to(self, pdf, printed):
        places = pdf.named_destinations
        for name in SOME or ("index", "05-mnist", "credits"):
            number = pdf.get_destination_page_number(places[f"/{name}"]) + 1
            assert re.search(rf"\b{number}\b", printed[1])
            assert str(number) in printed[number - 1].split()    # and the page says so itself

    def test_links_lead_somewhere(self, pdf):
        inner, outer = [], []
        for page in pdf.pages:
            for note in page.get("/Annots", []):
                note = note.get_object()
                action = note.get("/A", {})
                if "/URI" in action:
                    outer.append(action["/URI"])
                else:
                    inner.append(str(note.get("/Dest", action.get("/D"))))
        assert len(inner) > 20 and set(inner) <= set(pdf.named_destinations)
        assert outer and all(re.match(r"(https?|mailto):", link) for link in outer)

    def test_formulas_are_set(self, printed):
        assert [number for number, words in enumerate(printed, start=1) if re.search(r"\\(frac|theta|odot|mathbb|sum|lambda)", words)] == []

    def test_nothing_needs_a_hand(self, printed):
        words = " ".join(printed)
        assert "code cell source" not in words and "Solution to Exercise" in words and "Not this one" in words

    def test_pages_are_full_and_many(self, pdf, printed):
        assert len(printed) > (400 if not SOME else 20)
        assert [number for number, words in enumerate(printed, start=1) if len(words) < 60] == []
        assert pdf.metadata.title == "Reading the Weights" and pdf.metadata.author and pdf.trailer["/Root"]["/Lang"] == "en"


def test_every_link_of_the_pdf_s_document_has_an_end(html):
    """Before anything is printed: a browser would drop a link that leads nowhere."""
    make_pdf = load_script("make_pdf")
    parts = make_pdf.contents(ROOT / "_toc.yml") if not SOME else [("", [f"book/{name}" for name in SOME])]
    document = make_pdf.Assembly(html, parts, BASE).document("1.0", "")
    names = re.findall(r' id="([^"]+)"', document)
    assert len(names) == len(set(names))
    assert {text.unescape(link) for link in re.findall(r'<a [^>]*?href="#([^"]+)"', document)} <= set(map(text.unescape, names))


def test_a_page_that_is_none_is_named(html, tmp_path):
    with pytest.raises(ValueError, match="only=.'05-mist'.*05-mnist"):
        load_script("make_pdf").make(html, tmp_path / "x.pdf", ["05-mist"])
