TITLE = "Masks and straight-through"
ITEMS = []


def draw(rng):
    return {}
