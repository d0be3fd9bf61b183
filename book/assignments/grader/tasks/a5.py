TITLE = "An honest comparison"
ITEMS = []


def draw(rng):
    return {}
