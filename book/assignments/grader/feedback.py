"""One page for each submission: what was tried, what is missing, where the book explains it. Static, no network, light and dark."""

import html
import re
from pathlib import Path

import yaml

__all__ = ["book_link", "page", "section_titles"]

ROOT = Path(__file__).resolve().parents[3]
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de; --box: #f6f8fa; --link: #0550ae;
        --good: #0a6b2d; --bad: #a40e26; --part: #7a4b00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9da7b3; --line: #3d444d; --box: #161b22;
        --link: #79c0ff; --good: #56d364; --bad: #ff8a80; --part: #e3b341 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 46rem; font: 1rem/1.55 system-ui, sans-serif; color: var(--ink);
       background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem } h3 { font-size: 1.05rem; margin: 0 }
a { color: var(--link) } .soft { color: var(--soft) } .points { font-variant-numeric: tabular-nums; white-space: nowrap }
section { border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; padding: .8rem 1rem; background: var(--box) }
.head { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline }
ul { list-style: none; padding: 0; margin: .5rem 0 0 } li { padding: .45rem 0; border-top: 1px solid var(--line) }
.good { color: var(--good) } .bad { color: var(--bad) } .part { color: var(--part) }
.why { margin: .2rem 0 0 1.5rem } .zero { border-left: .3rem solid var(--bad) } .told { border-left: .3rem solid var(--part) }
code { font-size: .9em }
"""


def _config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def book_link(where, book=None):
    """The address of a place in the book, ``page#anchor``: in the published book at `book`, or else in its repository."""
    name, _, anchor = where.partition("#")
    if book:
        return f"{book.rstrip('/')}/book/{name}.html#{anchor}"
    repository = _config()["repository"]
    return f"{repository['url']}/blob/{repository['branch']}/book/{name}.ipynb#{anchor}"


_titles = {}


def section_titles(name):
    """{anchor: heading} of a chapter, from its notebook: what the book's build makes of its headings."""
    if name not in _titles:
        import nbformat
        found = {}
        notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                for heading in re.findall(r"^#{1,3} (.+)$", cell.source, flags=re.MULTILINE):
                    found[anchor_of(heading)] = re.sub(r"[{`$].*?[}`$]", "", heading).strip()
        _titles[name] = found
    return _titles[name]


def anchor_of(heading):
    """A heading's anchor, as the book's pages have it."""
    from docutils.nodes import make_id
    return make_id(heading.strip())


def place(where):
    """A place in words: chapter and section."""
    name, _, anchor = where.partition("#")
    number = int(name[:2]) if name[:2].isdigit() else None
    heading = section_titles(name).get(anchor, anchor.replace("-", " "))
    return f"chapter {number}, “{heading}”" if number else f"“{heading}”"


def _points(value):
    return f"{value:g}"


def _sentence(text):
    return text[:1].upper() + text[1:]


def _check(check, book):
    e = html.escape
    if check["earned"] >= check["points"]:
        return (f'<li><span class="good">✓</span> {e(_sentence(check["tried"]))} '
                f'<span class="soft points">{_points(check["points"])} of {_points(check["points"])}</span></li>')
    reason = f'<p class="why">What happened: {e(check["reason"])}.</p>' if check["reason"] else ""
    return (f'<li><span class="bad">✗</span> {e(_sentence(check["tried"]))} '
            f'<span class="soft points">0 of {_points(check["points"])}</span>{reason}'
            f'<p class="why"><strong>Missing idea.</strong> {e(check["idea"])} '
            f'<a href="{e(book_link(check["where"], book))}">Read again: {e(place(check["where"]))}</a>.</p></li>')


def _item(item, book):
    e = html.escape
    kind = "good" if item["earned"] >= item["points"] else "part" if item["earned"] else "bad"
    return (f'<section><div class="head"><h3>{e(item["number"])} {e(item["title"])}</h3>'
            f'<span class="points {kind}">{_points(item["earned"])} of {_points(item["points"])} points</span></div>'
            f'<ul>{"".join(_check(c, book) for c in item["checks"])}</ul></section>')


def _manual(rows):
    e = html.escape
    lines = []
    for row in rows:
        earned = "not marked yet" if row["earned"] is None else f'{_points(row["earned"])} of {_points(row["points"])}'
        remark = f'<p class="why">{e(row["remark"])}</p>' if row.get("remark") else ""
        lines.append(f'<li>{e(row["asks"])} <span class="soft points">{earned}</span>{remark}</li>')
    return (f'<section><div class="head"><h3>Read by your instructor</h3></div><ul>{"".join(lines)}</ul></section>') if rows else ""


def page(identifier, results, problems=(), book=None):
    """The feedback page of one submission.

    Parameters
    ----------
    identifier : str
        Whose it is.
    results : list of (title, dict)
        Graded assignments, as :meth:`judge.Result.to_dict` gives them, with a list ``manual`` of marks by hand.
    problems : list of str
        What could not be graded.
    book : str, optional
        Where the book is published; without it links lead to its repository.

    Returns
    -------
    str
        HTML that asks no other machine for anything.
    """
    e = html.escape
    parts = [f"<h1>Feedback for {e(identifier)}</h1>"]
    parts += [f'<section class="zero"><strong>Not graded.</strong> {e(text)}</section>' for text in problems]
    for name, result in results:
        manual = result.get("manual", [])
        points = result["points"] + sum(row["points"] for row in manual)
        earned = result["earned"] + sum(row["earned"] or 0 for row in manual)
        parts.append(f'<h2>Assignment {e(name)}</h2><p><strong class="points">{_points(earned)} of {_points(points)} points</strong></p>')
        if result["zero"]:
            parts.append(f'<section class="zero"><strong>No points.</strong> {e(result["zero"])} '
                         "If you think that this is a mistake, answer to your instructor with this page.</section>")
        if result["told"]:
            parts.append(f'<section class="told"><strong>Good to know.</strong><ul>{"".join(f"<li>{e(t)}</li>" for t in result["told"])}</ul></section>')
        if not result["zero"]:
            parts += [_item(item, book) for item in result["items"]]
        parts.append(_manual(manual))
    parts.append('<p class="soft">A property is right if it held in every case that was tried. The cases were drawn for your course.</p>')
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>Feedback for {e(identifier)}</title><style>{STYLE}</style></head><body><main>{"".join(parts)}</main></body></html>\n')
