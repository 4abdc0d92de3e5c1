"""How Sphinx builds these pages: MyST's Markdown, furo, and every warning an error (`make docs`)."""

import re
from importlib.metadata import version as version_of

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "colossalai-env"
version = release = version_of(project)
project_copyright = "the authors of colossalai-env"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r"[a-z_]+\*?"),  # `timeout` in a docstring is a parameter; a name with a capital must be found
    # Others' pages: the build asks no network.
    ("py:.*", r"(torch|collections|argparse|datetime|os|pathlib|sys|hypothesis)\..*"),
    # Types that only stand in signatures: what var(), derive() and either() return, and aliases.
    (
        "py:.*",
        r"colossalai_env\.(_rows\.(Var|Derived|Either|Row|Required|Reader)|_resolution\.Resolution)",
    ),
]

default_role = "py:obj"
highlight_language = "text"
add_module_names = False
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": ["view"]}

copybutton_prompt_text = "$ "


PUBLIC = ("colossalai_env", "colossalai_env.resolver", "colossalai_env.errors", "colossalai_env.testing")
"""The modules whose names the pages document."""


def of_another_module(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Find a name of one public module in the docstrings of another."""
    if node["refdomain"] != "py":
        return None
    for module in PUBLIC:
        name = f"{module}.{node['reftarget']}"
        found = env.get_domain("py").resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], name, node, content
        )
        if found is not None:
            return found
    return None


def no_addresses(  # noqa: D103 - Sphinx's signature of this event
    app: object, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    del app, what, name, obj, options
    # A default such as <function f> is no Python: Sphinx would show the whole signature as plain text.
    return signature and re.sub(r"<function \w+>", "...", signature), returns


def setup(app: Sphinx) -> None:  # noqa: D103 - Sphinx's own name
    app.connect("autodoc-process-signature", no_addresses)
    app.connect("missing-reference", of_another_module)
