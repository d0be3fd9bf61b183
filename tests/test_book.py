"""The book as readers get it: what is committed, what is built, and what a page asks for when it is opened.

Every checker here is shown to go red: each has a test with a small planted violation.
"""

import html as escapes
import importlib.util
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml

from switcher_lib.plotting import OTHERWISE

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
CHAPTERS = [p for p in NOTEBOOKS if re.match(r"\d\d-", p.name)]    # the others are appendices: run and read alike, but no lessons
LINES_PER_CELL = 30
COLUMNS_PER_CELL = 78


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = load_script("execute")


# ---------------------------------------------------------------------------------------------- checkers: the built pages

class Page(HTMLParser):
    """What a page loads from elsewhere, and its images without words."""

    LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
             "object": "data", "input": "src", "track": "src", "image": "href", "use": "href"}
    LINKS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
    REMOTE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
    REMOTE_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^'\")\s]*", re.IGNORECASE)
    REMOTE_JS = re.compile(r"(?:https?:)?//[\w.-]*(?:unpkg|jsdelivr|cdnjs|cloudflare|googleapis|gstatic|skypack|esm\.sh)[^\s'\"]*")

    def __init__(self, text):
        super().__init__()
        self.external, self.wordless, self._inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = {name: value or "" for name, value in attributes}
        self._inside = tag if tag in ("script", "style") else None
        wanted = a.get(self.LOADS.get(tag, ""), "")
        if tag == "link" and self.LINKS & set(a.get("rel", "").lower().split()):
            wanted = a.get("href", "")
        candidates = [wanted, *(part.split()[0] for part in a.get("srcset", "").split(",") if part.strip())]
        self.external += [url for url in candidates if self.REMOTE.match(url)]
        self.external += self.REMOTE_CSS.findall(a.get("style", ""))
        alt = a.get("alt", "").strip()
        if tag == "img" and (not alt or re.search(r"\.(png|svg|jpe?g|gif|webp)$", alt)):
            self.wordless.append(a.get("src", "")[:120])
        if tag == "svg" and a.get("role") == "img" and not (a.get("aria-label", "") + a.get("aria-labelledby", "")).strip():
            self.wordless.append(f"svg {a.get('id', '')}")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "style":
            self.external += self.REMOTE_CSS.findall(data)
        if self._inside == "script":
            self.external += self.REMOTE_JS.findall(data)


def css_loads(text):
    return Page.REMOTE_CSS.findall(text)


# ------------------------------------------------------------------------------------------- checkers: what is committed

def cell_faults(notebook):
    """Cells that are too long or too wide to read, and titles that are missing."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        lines = cell.source.splitlines()
        if cell.cell_type == "code" and len(lines) > LINES_PER_CELL:
            found.append(f"cell {number} has {len(lines)} lines")
        if cell.cell_type == "code" and any(len(line) > COLUMNS_PER_CELL for line in lines):
            found.append(f"cell {number} has a line of more than {COLUMNS_PER_CELL} columns")
    first = notebook.cells[0].source if notebook.cells else ""
    if not first.startswith("# "):
        found.append("the first cell is no title")
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) != len(ids):
        found.append("cells without an id of their own")
    return found


def chapter_faults(notebook):
    """What a chapter has and an appendix need not have: what is missing of it."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    wanted = {"learning objectives": r"^```\{admonition\} In this chapter$", "what could go wrong": r"^## What could go wrong",
              "limits": r"^## Limits$", "questions": r"^## Check yourself$", "exercises": r"^## Exercises$", "the take-away": r"^## Take-away$"}
    return [f"no {what}" for what, pattern in wanted.items() if not re.search(pattern, text, re.MULTILINE)]


def time_faults(seconds):
    """Notebooks over their limit, and all together over theirs."""
    found = [f"{name} takes {s} s, more than {execute.LIMIT:.0f}" for name, s in seconds.items() if s > execute.LIMIT]
    total = sum(seconds.values())
    return found + [f"all take {total:.1f} s, more than {execute.LIMIT_OF_ALL:.0f}"] * (total > execute.LIMIT_OF_ALL)


def figure_faults(notebook):
    """Cells whose picture has no alternative text: in its HTML, or for a bare image in the metadata mystnb.image.alt."""
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            bare = any(mime.startswith("image/") for mime in data) and "text/html" not in data
            told = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
            if bare and not told or Page(data.get("text/html", "")).wordless:
                found.append(f"cell {number}: a picture without alternative text")
    return found


def committed_texts(root=ROOT):
    """The files that travel with the repository and are read as text."""
    kinds = {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".txt", ".cff", ".json", ".lock", ".bib", ".css", ".sh", ""}
    skip = {".git", ".venv", "_build", ".cache", "vendor", "__pycache__", ".pytest_cache", ".hypothesis"}
    for path in sorted(root.rglob("*")):
        parts = set(path.relative_to(root).parts)
        if path.is_file() and path.suffix in kinds and not parts & skip and not any(p.endswith(".egg-info") for p in parts):
            yield path, path.read_text(encoding="utf-8", errors="ignore")


def repository_names(text, repository):
    """Mentions of a repository of this name that are not the one that _config.yml names."""
    owner, name = repository.rstrip("/").split("/")[-2:]
    mentions = set(re.findall(rf"github(?:\.com|usercontent\.com|/)[/:]?([\w.-]+/{re.escape(name)})\b", text))
    return sorted(mentions - {f"{owner}/{name}"})


# -------------------------------------------------------------------------------------------------- the committed chapters

def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_is_in_the_table_of_contents(self, path):
        assert path in execute.notebooks_of_the_book()

    def test_was_run_and_its_outputs_can_be_published(self, path):
        assert execute.faults(nbformat.read(path, as_version=4)) == []

    def test_cells_can_be_read(self, path):
        assert cell_faults(nbformat.read(path, as_version=4)) == []

    def test_every_picture_has_words(self, path):
        assert figure_faults(nbformat.read(path, as_version=4)) == []

    def test_is_stored_as_make_execute_stores_it(self, path):
        notebook = nbformat.read(path, as_version=4)
        assert execute.normalise(nbformat.read(path, as_version=4)) == notebook


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_has_what_a_chapter_has(path):
    assert chapter_faults(nbformat.read(path, as_version=4)) == []


def test_every_entry_of_the_table_of_contents_exists():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for name in re.findall(r"(?:file|root): (\S+)", toc):
        assert any((ROOT / f"{name}{suffix}").exists() for suffix in (".ipynb", ".md")), name


def test_recorded_times_are_within_a_minute_and_ten_minutes_in_all():
    if not execute.TIMES.exists():
        pytest.skip("results/execution_times.json is made by `make execute`")
    seconds = json.loads(execute.TIMES.read_text(encoding="utf-8"))["seconds"]
    assert set(seconds) <= {p.name for p in NOTEBOOKS}
    assert {p.name for p in CHAPTERS} <= set(seconds)
    assert time_faults(seconds) == []


def test_one_repository_is_named_everywhere():
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert {str(p): repository_names(text, url) for p, text in committed_texts() if repository_names(text, url)} == {}


def test_lock_file_holds_what_requirements_ask_for():
    def names(file):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in lines if line and not line.startswith("#")}

    assert names("requirements.txt") <= names("requirements.lock")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lock.splitlines() if line and not line.startswith("#"))


# --------------------------------------------------------------------------------------------------------- the built pages

def test_no_page_loads_anything_from_elsewhere(html):
    pages = {p.relative_to(html): Page(p.read_text(encoding="utf-8")).external for p in html.rglob("*.html")}
    sheets = {p.relative_to(html): css_loads(p.read_text(encoding="utf-8")) for p in html.rglob("*.css")}
    assert {str(p): found for p, found in {**pages, **sheets}.items() if found} == {}


def test_every_image_of_a_page_has_words(html):
    pages = {p.relative_to(html): Page(p.read_text(encoding="utf-8")).wordless for p in html.rglob("*.html")}
    assert {str(p): found for p, found in pages.items() if found} == {}


def test_every_notebook_has_a_page(html):
    assert [p.stem for p in NOTEBOOKS if not (html / "book" / f"{p.stem}.html").exists()] == []


def buttons(page):
    """The addresses behind the buttons at the top of a built page."""
    bar = re.search(r'<div class="article-header-buttons">(.*?)<div id="jb-print-docs-body"', page, re.DOTALL)[1]
    return [escapes.unescape(address) for address in re.findall(r'<a href="([^"]+)"', bar)]


def button_faults(name, found):
    """What is wrong with a page's buttons: of a notebook Binder, Colab, source, issue and download; of another page the last three."""
    with open(ROOT / "_config.yml", encoding="utf-8") as file:
        repository = yaml.safe_load(file)["repository"]
    url, branch = repository["url"], repository["branch"]
    owner_name, suffix = url.removeprefix("https://github.com/"), next(s for s in (".ipynb", ".md") if (ROOT / f"{name}{s}").exists())
    wanted = {url, f"{url}/blob/{branch}/{name}{suffix}" + "?plain=1" * (suffix == ".md"),
              f"{url}/issues/new?title=Issue%20on%20page%20%2F{name}.html&body=Your%20issue%20content%20here.",
              f"{'../' * name.count('/')}_sources/{name}{suffix}"}
    if suffix == ".ipynb":
        wanted |= {f"https://mybinder.org/v2/gh/{owner_name}/{branch}?urlpath=lab/tree/{name}.ipynb",
                   f"https://colab.research.google.com/github/{owner_name}/blob/{branch}/{name}.ipynb"}
    return sorted(wanted ^ set(found))


def test_every_button_leads_to_what_is_in_the_repository(html):
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    pages = {name: buttons((html / f"{name}.html").read_text(encoding="utf-8")) for name in re.findall(r"(?:file|root): (\S+)", toc)}
    assert {name: wrong for name, found in pages.items() if (wrong := button_faults(name, found))} == {}
    downloads = [html / name / ".." / address for name, found in pages.items() for address in found if "_sources/" in address]
    assert [str(path) for path in downloads if not path.resolve().is_file()] == [] and len(downloads) == len(pages)


def test_planted_button_is_found():
    start, end = '<div class="article-header-buttons">', '<div id="jb-print-docs-body"'
    assert buttons(f'{start}<a href="x?a=1&amp;b=2">{end}<a href="y">') == ["x?a=1&b=2"]
    with_launch = button_faults("book/notation", ["https://mybinder.org/v2/gh/x/y/main?urlpath=lab/tree/book/notation.md"])
    assert any("mybinder" in address for address in with_launch) and any("blob" in address for address in with_launch)


def opened(page, path):
    """Open a page and wait until its formulas are drawn; how many it has."""
    page.goto(path.as_uri(), wait_until="load")
    formulas = page.locator("span.math, div.math").count()
    if formulas:
        page.wait_for_selector("mjx-container", state="attached")
    return formulas


COLOURS = ["color-contrast", "link-in-text-block"]


def barriers(page, **options):
    """What axe-core finds on an opened page that keeps people out: its serious and critical violations."""
    axe = pytest.importorskip("axe_playwright_python", reason="accessibility is checked with axe-core: pip install axe-playwright-python")
    page.evaluate(next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8"))
    found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **options})
    return [f"{v['id']}: {node['html'][:200]}" for v in found["violations"] if v["impact"] in ("serious", "critical")
            for node in v["nodes"]]


def faults_of_opened(page, path):
    """What is wrong with a page opened from the disk with the network cut: its formulas, what it asks for, its scripts, its
    accessibility, its width on a phone. By every rule of axe-core but the two of colours, which take a long page half a minute,
    and that of regions, which takes a third of the rest and is none of the serious ones."""
    page.asked.clear(), page.errors.clear()
    page.set_viewport_size({"width": 1280, "height": 900})
    formulas = opened(page, path)
    page.wait_for_timeout(500)    # what a script asks for after the page has loaded
    drawn = page.locator("mjx-container").count()
    found = [f"draws {drawn} of {formulas} formulas"] * (drawn < formulas / 2)
    found += ["a formula that cannot be set"] * page.locator("[data-mml-node=merror]").count()
    found += [f"asks for {address}" for address in page.asked] + [f"fails: {error}" for error in page.errors]
    found += barriers(page, rules={rule: {"enabled": False} for rule in (*COLOURS, "region")})
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found + [f"{sideways} pixels wider than a phone"] * (sideways > 0)


@pytest.mark.browser
def test_every_page_opens_alone_for_everybody_and_on_a_phone(html, page):
    """In one go: opening a page takes longer than most of what is looked at. The page for what is not there works on a server only
    and is looked at in test_site.py."""
    pages = sorted({*html.glob("*.html"), *(html / "book").glob("*.html")} - {html / "404.html"})
    found = {str(path.relative_to(html)): faults_of_opened(page, path) for path in pages}
    assert {name: told for name, told in found.items() if told} == {}


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_contrast(html, page, theme):
    """On pages that hold between them what the style gives a colour; ALL_CONTRASTS=1 looks at every page."""
    page.add_init_script(f"localStorage.setItem('theme', '{theme}'); localStorage.setItem('mode', '{theme}')")
    pages = [html / "prf-prf.html", *(html / "book" / f"{name}.html" for name in ("index", "01-why-structure", "playground"))]
    if os.environ.get("ALL_CONTRASTS"):
        pages = sorted([*html.glob("*.html"), *(html / "book").glob("*.html")])
    found = {}
    for path in pages:
        opened(page, path)
        page.wait_for_timeout(300)    # until what fades in has its colour
        found[path.name] = barriers(page, runOnly=COLOURS)
    assert {name: told for name, told in found.items() if told} == {}


# ------------------------------------------------------------------------------------------------ the checkers can go red

@pytest.mark.parametrize("planted", [
    '<script src="https://cdn.example.org/x.js"></script>',
    '<script src="//cdn.example.org/x.js"></script>',
    '<link rel="stylesheet" href="https://fonts.example.org/css">',
    '<link rel="preconnect" href="https://fonts.example.org">',
    '<img alt="words" src="http://example.org/a.png">',
    '<img alt="words" src="a.png" srcset="a.png 1x, https://example.org/b.png 2x">',
    '<style>@import "https://example.org/a.css";</style>',
    '<p style="background: url(https://example.org/a.png)">x</p>',
    '<script>import("https://unpkg.com/x")</script>',
    '<iframe src="https://example.org"></iframe>',
])
def test_planted_request_is_found(planted):
    assert Page(planted).external
    assert Page('<a href="https://example.org">a link is no request</a><img alt="words" src="a.png">').external == []


def test_planted_font_of_a_style_sheet_is_found():
    assert css_loads("@font-face { src: url('https://example.org/f.woff2') }")
    assert css_loads("@font-face { src: url('../fonts/f.woff2') }") == []


@pytest.mark.parametrize("planted", ['<img src="a.png">', '<img alt=" " src="a.png">', '<img alt="../_images/a.png" src="a.png">',
                                     '<svg role="img"></svg>'])
def test_planted_picture_without_words_is_found(planted):
    assert Page(planted).wordless
    assert Page('<img alt="Accuracy rises to 98 %" src="a.png"><svg role="img" aria-label="x"></svg>').wordless == []


@pytest.mark.browser
@pytest.mark.parametrize("planted, told", [
    ("", []),
    ("<script>fetch('https://example.org/x.json').catch(() => 0)</script>", ["asks for https://example.org/x.json"]),
    ("<script>nope()</script>", ["fails: nope is not defined"]),
    ('<p><span class="math">x</span></p><mjx-container></mjx-container>', []),
    ('<p><span class="math">x</span><span class="math">y</span><span class="math">z</span></p><mjx-container></mjx-container>',
     ["draws 1 of 3 formulas"]),
    ('<p data-mml-node="merror">x</p>', ["a formula that cannot be set"]),
    ('<div style="width: 500px">x</div>', ["118 pixels wider than a phone"]),
    ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', ["image-alt: "]),
    ('<input type="range">', ["label: "]),
])
def test_planted_fault_of_an_opened_page_is_found(tmp_path, page, planted, told):
    head = '<title>x</title><meta name="viewport" content="width=device-width">'
    (tmp_path / "page.html").write_text(f'<html lang="en"><head>{head}</head><main><h1>x</h1>{planted}</main></html>')
    found = faults_of_opened(page, tmp_path / "page.html")
    assert len(found) == len(told) and all(fault.startswith(words) for fault, words in zip(found, told))


@pytest.mark.browser
def test_planted_pale_words_are_found(tmp_path, page):
    pale = '<p style="color: #999; background: #fff">pale</p>'
    (tmp_path / "page.html").write_text(f'<html lang="en"><title>x</title><main><h1>x</h1>{pale}</main></html>')
    page.goto((tmp_path / "page.html").as_uri())
    assert [told.split(":")[0] for told in barriers(page)] == ["color-contrast"]


def notebook(source="1 + 1", outputs=(), title="# A title", **metadata):
    code = nbformat.v4.new_code_cell(source, execution_count=1, outputs=list(outputs), metadata=metadata)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title), code])


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def result(**data):
    return nbformat.v4.new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})


def test_faultless_notebook_has_no_faults():
    good = notebook(outputs=[stream("loss 0.1, see /results and results/mnist.json or https://example.org/home/x")])
    assert execute.faults(good) == [] and cell_faults(good) == [] and figure_faults(good) == []


@pytest.mark.parametrize("outputs, says", [
    ([stream("UserWarning: careful", "stderr")], "stderr"),
    ([stream(f"saved in {Path.home()}/a.pt")], "path of this machine"),
    ([stream("saved in " + "/".join(["", "home", "somebody", "a.pt"]))], "path of this machine"),
    ([stream("File " + "/".join(["", "srv", "x", ".venv", "lib"]))], "path of this machine"),
    ([stream(f"{ROOT}/book")], "path of this machine"),
    ([result(text_html=f"<p>{ROOT}</p>")], "path of this machine"),
    ([result(text_plain=f"{OTHERWISE}, which says: it falls.", text_html="<p>...</p>")], "contradicts the text"),
    ([nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])], "ValueError"),
])
def test_planted_output_is_found(outputs, says):
    assert says in " ".join(execute.faults(notebook(outputs=outputs)))


def test_planted_cell_that_was_not_run_is_found():
    planted = notebook()
    planted.cells[1].execution_count = None
    assert "not run" in " ".join(execute.faults(planted))


@pytest.mark.parametrize("planted, says", [
    (notebook("\n".join(["x = 1"] * (LINES_PER_CELL + 1))), "lines"),
    (notebook("x = " + "1" * COLUMNS_PER_CELL), "columns"),
    (notebook(title="No title"), "title"),
])
def test_planted_cell_is_found(planted, says):
    assert says in " ".join(cell_faults(planted))


def test_planted_slow_notebooks_are_found():
    assert time_faults({"a.ipynb": 60.0, "b.ipynb": 59.9}) == []
    assert "a.ipynb takes 60.1 s" in " ".join(time_faults({"a.ipynb": 60.1}))
    assert "all take 605.0 s" in " ".join(time_faults({f"{i}.ipynb": 55.0 for i in range(11)}))


def test_planted_chapter_without_its_parts_is_found():
    parts = "# T\n```{admonition} In this chapter\n```\n## What could go wrong: so\n## Limits\n## Check yourself\n## Exercises\n## Take-away"
    assert chapter_faults(notebook(title=parts)) == []
    assert chapter_faults(notebook(title=parts.replace("## Limits", "## Bounds"))) == ["no limits"]
    assert len(chapter_faults(notebook())) == 6


def test_planted_cell_id_is_found():
    planted = notebook()
    planted.cells[1]["id"] = planted.cells[0]["id"]
    assert "id" in " ".join(cell_faults(planted))


def test_planted_figure_without_words_is_found():
    assert figure_faults(notebook(outputs=[result(image_png="aGk=")]))
    assert figure_faults(notebook(outputs=[result(text_html='<img src="data:image/png;base64,aGk=">')]))
    assert figure_faults(notebook(outputs=[result(image_png="aGk=")], mystnb={"image": {"alt": "Accuracy rises"}})) == []
    assert figure_faults(notebook(outputs=[result(text_html='<img alt="Accuracy rises" src="data:image/png;base64,aGk=">')])) == []


def test_planted_repository_is_found():
    url = "https://github.com/somebody/the-book"
    assert repository_names("see https://github.com/" + "else/the-book", url) == ["else/the-book"]
    assert repository_names("colab.research.google.com/github/" + "else/the-book/blob", url) == ["else/the-book"]
    assert repository_names("see https://github.com/somebody/the-book/issues and github.com/x/y", url) == []


# --------------------------------------------------------------------------------------------------------- make execute

def written(folder, *sources):
    path = folder / "chapter.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def times(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "TIMES", tmp_path / "results" / "execution_times.json")
    return execute.TIMES


def test_execute_stores_outputs_and_a_second_run_changes_nothing(tmp_path, times):
    path = written(tmp_path, "print('a', flush=True)\nprint('b')", "class A: pass\nA()")
    assert execute.execute(path) == []
    first = path.read_bytes()
    stored = nbformat.read(path, as_version=4)
    assert stored.cells[0].outputs == [stream("a\nb\n")]
    assert "0x" not in stored.cells[1].outputs[0].data["text/plain"]
    assert list(json.loads(times.read_text())["seconds"]) == ["chapter.ipynb"]
    assert execute.execute(path) == [] and path.read_bytes() == first


@pytest.mark.parametrize("source, says", [
    ("1 / 0", "ZeroDivisionError"),
    ("import warnings; warnings.warn('careful')", "stderr"),
    ("import os; print(os.getcwd())", "path of this machine"),
    ("class Data: is_stand_in = True\ndata = Data()", "stand-in"),
])
def test_execute_does_not_store_what_must_not_be_published(tmp_path, times, source, says):
    path = written(tmp_path, source)
    before = path.read_bytes()
    assert says in " ".join(execute.execute(path))
    assert path.read_bytes() == before and not times.exists()


def test_execute_stores_stand_ins_only_when_asked(tmp_path, times):
    path = written(tmp_path, "class Data: is_stand_in = True\ndata = Data()")
    assert execute.execute(path, stand_ins_allowed=True) == []
    assert not times.exists()


def test_execute_names_a_notebook_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        execute.main(["no-such.ipynb"])
    assert "no such notebook" in capsys.readouterr().err


# ------------------------------------------------------------------- the answers on the page "Before you start" and the landing page

def test_answers_of_the_self_test_are_right():
    W, s = np.ones((300, 784)), np.arange(300.0)
    assert ((W * s[:, None])[7] == 7).all()
    for wrong in (lambda: W * s, lambda: W * s[None, :]):
        with pytest.raises(ValueError):
            wrong()
    assert (s @ W).shape == (784,)
    assert sum(p.numel() for p in torch.nn.Linear(784, 300).parameters()) == 235_500
    assert torch.relu(torch.zeros(3)).sum() == 0 and torch.sigmoid(torch.zeros(1)) == 0.5

    s, w = (torch.tensor(v, requires_grad=True) for v in (2.0, 3.0))
    x, y = 5.0, 7.0
    ((s * w * x - y) ** 2).backward()
    assert s.grad == 2 * (s * w * x - y) * w * x and w.grad == 2 * (s * w * x - y) * s * x
    ((s * w * x - y) ** 2).backward()
    assert s.grad == 4 * (s * w * x - y) * w * x          # gradients add up

    z = torch.linspace(-2, 2, 9)
    assert all(torch.equal(torch.relu(c * z), c * torch.relu(z)) for c in (0.0, 1.0, 3.0))
    assert not torch.equal(torch.relu(-z), -torch.relu(z))


def test_detach_leaves_the_path_through_the_product_open():
    switcher, w, x = torch.nn.Linear(4, 4), torch.randn(4, requires_grad=True), torch.randn(4)
    s = switcher(w.detach())
    ((s * w) @ x).pow(2).sum().backward()
    assert switcher.weight.grad.abs().sum() > 0
    by_hand = 2 * ((s * w) @ x) * s * x
    torch.testing.assert_close(w.grad, by_hand.detach())


def test_landing_page_counts_the_network_it_shows():
    layers = [(784, 300), (300, 100), (100, 10)]
    assert f"{sum(d * n + n for d, n in layers):,}" in (ROOT / "book" / "index.md").read_text(encoding="utf-8")
