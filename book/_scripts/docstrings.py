"""A Sphinx extension with three small helps for the library's pages.

A property's docstring is prose, also when its first line holds a colon. Napoleon reads that line as "type: description", and
"Widths of the layers: {name: width}" would lose its first half. An empty comment in front keeps the sentence whole; "bool : whether ...", with a space before the
colon, stays a type.

A name of the library is found from every module: ``:meth:`Switched.cost``` links from `training` as it does from `switched`,
and the public ``switcher_lib.fit`` is `switcher_lib.training.fit`.
A name that two modules have in common, or none has, is still an error under ``-n``.

Whether a page of source code is out of date is told by its file alone. Sphinx would import the module to ask for the file's name,
and PyTorch with it, at every build: a third of the time that a build with one changed page takes.
"""

from pathlib import Path

from sphinx.ext import viewcode
from sphinx.util.nodes import make_refnode


def keep_sentence(app, what, name, obj, options, lines):
    if what == "property" and lines and " : " not in lines[0]:
        lines[:0] = ["..", ""]


def find_in_any_module(app, env, node, contnode):
    if node.get("refdomain") != "py":
        return None
    package, _, name = node["reftarget"].partition(".")
    target = name if package == "switcher_lib" and "." not in name else node["reftarget"]
    found = env.get_domain("py").find_obj(env, None, None, target, node["reftype"], 1)
    if len(found) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name)


def source_file(app, name):
    path = Path(app.srcdir, *name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return str(path) if path.exists() else None


def setup(app):
    viewcode.get_module_filename = source_file
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)  # before napoleon's 500
    app.connect("missing-reference", find_in_any_module)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "2"}
