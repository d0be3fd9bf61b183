TITLE = "Alternate learning"
ITEMS = []


def draw(rng):
    return {}
