"""A page of one file: it works without a network, and fetches nothing.

Its content security policy allows its own style and script by their hashes and nothing else, so a
token or a name that is HTML does nothing, even where it were not escaped.
"""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path

# What all pages share: colours (light and dark), letters, tables, print.
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def document(title: str, style: str, script: str, body: str) -> str:
    """The page of that body, which is HTML; `style` comes after what all pages share. Its links are
    below a `<header class="page">`, and `main` and `footer` are as wide as that."""
    style = STYLE + style
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def facts(described: Mapping[str, str]) -> str:
    """A list of facts, each below its name."""
    terms = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in described.items()
    )
    return f'<dl class="facts">{terms}</dl>'


def _policy(style: str, script: str) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    own = "style-src 'sha256-{}'; script-src 'sha256-{}'".format(*hashes)
    return f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
