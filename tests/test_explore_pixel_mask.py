"""The pixel masks: a replay of what was recorded."""

import pytest
from explorers import RESULTS

from switcher_lib.explore import PixelMask


def test_masks_are_replayed_as_they_were_recorded():
    mask = PixelMask(RESULTS / "pixel-masks.json")
    for mask.price in range(len(mask.runs)):
        for mask.look in range(len(mask.runs[0]["looks"])):
            look = mask.runs[mask.price]["looks"][mask.look]
            assert mask.shown()["on"] == look["on"]["input"]
    with pytest.raises(FileNotFoundError, match=r"pixel_masks.py makes it"):
        PixelMask("nowhere.json")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda: setattr(PixelMask(RESULTS / "pixel-masks.json"), "look", 13), "look=13 has to lie between 0 and 12"),
    ],
)
def test_pixel_mask_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        change()
