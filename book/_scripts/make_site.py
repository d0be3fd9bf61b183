"""Make of the built pages the site that is published, and the same as a zip to read without a network.

    python book/_scripts/make_site.py --html _build/publish/_build/html --pdf _build/reading-the-weights.pdf

It writes, under --to (default _build), site/ as GitHub Pages serves it, with downloads/reading-the-weights.zip and .pdf in it, and
the zip beside it. The zip is the same to the byte for the same pages: names in order, one time for all.
"""

import argparse
import shutil
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import publication

ROOT = Path(__file__).resolve().parents[2]
NAME = "reading-the-weights"
JUNK = {".buildinfo", ".buildinfo.bak", ".doctrees"}
SERVER_ONLY = {".nojekyll", "404.html", "robots.txt", "sitemap.xml", "downloads"}    # what means nothing to a copy on a disk


def make_zip(site, path, version, time=None):
    """Pack the pages of a site into a folder NAME-VERSION of a zip file.

    Parameters
    ----------
    site : Path
        The site's folder.
    path : Path
        The file to write.
    version : str
        Names the folder in the zip.
    time : datetime or None, default None
        When every file in it says it was made; None for the earliest that a zip can tell, 1 January 1980.
    """
    stamp = (time or datetime(1980, 1, 1, tzinfo=UTC)).timetuple()[:6]
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(p for p in site.rglob("*") if p.is_file()):
            inside = file.relative_to(site)
            if inside.parts[0] in SERVER_ONLY:
                continue
            entry = zipfile.ZipInfo(f"{NAME}-{version}/{inside.as_posix()}", date_time=stamp)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)


def make_site(pages, pdf, to):
    """Write the site and its zip; returns their paths.

    Parameters
    ----------
    pages : Path
        The built pages.
    pdf : Path
        The book as one PDF.
    to : Path
        The folder for ``site`` and the zip file; a ``site`` that is there already is replaced.

    Raises
    ------
    FileNotFoundError
        Without the pages or the PDF: the first page offers both.
    """
    for needed, command in ((pages / "404.html", "book"), (pdf, "pdf")):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed} is not there; `make {command}` makes it, and `make site` everything in its order.")
    site, packed = to / "site", to / f"{NAME}.zip"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(pages, site, ignore=lambda folder, names: JUNK & set(names))
    (site / ".nojekyll").touch()    # without it Pages leaves out every folder that begins with an underscore
    make_zip(site, packed, publication.library_version(ROOT), publication.commit_time(ROOT))
    (site / "downloads").mkdir()
    shutil.copyfile(packed, site / "downloads" / packed.name)
    shutil.copyfile(pdf, site / "downloads" / f"{NAME}.pdf")
    return site, packed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "publish" / "_build" / "html", help="the built pages")
    parser.add_argument("--pdf", type=Path, default=ROOT / "_build" / f"{NAME}.pdf", help="the book as one PDF")
    parser.add_argument("--to", type=Path, default=ROOT / "_build", help="where the site and the zip go")
    told = parser.parse_args()
    site, packed = make_site(told.html, told.pdf, told.to)
    size = sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    print(f"{site}: {size / 2**20:.1f} MB, to be served at {publication.book_address(ROOT)}")
    print(f"{packed}: {packed.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
