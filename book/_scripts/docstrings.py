"""A Sphinx extension: a property's docstring is prose, also when its first line holds a colon.

Napoleon reads the first line of a property's docstring as "type: description". This library's say what the property is, and
"Widths of the layers: {name: width}" would lose its first half. An empty line in front keeps the sentence whole.
"""


def keep_sentence(app, what, name, obj, options, lines):
    if what == "property" and lines and lines[0]:
        lines.insert(0, "")


def setup(app):
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)  # before napoleon's 500
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
