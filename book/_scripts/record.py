"""Record the playground as the README's moving picture.

    python book/_scripts/record.py [OUT]

Needs the built book (``make book``), Chromium, Playwright and Pillow (which Matplotlib brings). OUT is
``.github/playground.gif`` unless it is named. The run is the playground's own, so the picture is the same each time, up to
how a machine draws letters.
"""

import io
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import headless

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "_build/html/book/playground.html"
RUN = "#play:data=moons&seed=1&lambda=0.1"    # the page's first experiment
LOOKS = [*range(0, 200, 20), *range(200, 600, 40), *range(600, 2001, 100)]    # task steps; most happens early
WIDTH, COLORS = 720, 64
MS, LAST_MS = 120, 3000    # how long a frame stays, and the last


def frames(browser):
    """Yield one picture for each look: the two networks and what is left of them."""
    page = browser.new_page(viewport={"width": 1180, "height": 1800})
    page.goto(PAGE.as_uri() + RUN)
    page.wait_for_selector(".pg-pictures canvas")
    boxes = [page.locator(f".pg {part}").first.bounding_box() for part in (".pg-pictures", ".sl-tiles")]
    left, top = (min(box[side] for box in boxes) - 4 for side in ("x", "y"))
    clip = {"x": left, "y": top, "width": max(box["x"] + box["width"] for box in boxes) + 4 - left,
            "height": max(box["y"] + box["height"] for box in boxes) + 24 - top}    # a tile's text may take a second line
    done = 0
    for step in LOOKS:
        page.evaluate("count => playground.advance(count)", step - done)
        done = step
        yield Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def main(out):
    """Write the picture, and say how large it is."""
    if not PAGE.exists():
        raise SystemExit(f"{PAGE} is not there: run make book first.")
    with headless.chromium() as browser:
        pictures = [p.resize((WIDTH, round(p.height * WIDTH / p.width)), Image.LANCZOS) for p in frames(browser)]
    palette = pictures[-1].quantize(COLORS, dither=Image.Dither.NONE)    # one for all frames: nothing flickers
    first, *others = (p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures)
    first.save(out, save_all=True, append_images=others, duration=[MS] * (len(pictures) - 1) + [LAST_MS], loop=0, optimize=True)
    print(f"{out}: {len(pictures)} frames, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".github/playground.gif")
