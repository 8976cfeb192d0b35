"""The OpenAPI description as a page to read, without scripts."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: interface</title>
<link rel="stylesheet" href="/interface.css">
<link rel="icon" href="/icon.svg">
</head>
<body>
<header><h1>{title}</h1>
{description}
<p>For programs: <a href="/openapi.json">openapi.json</a>. For people: <a href="/">the page</a>.</p>
</header>
<main>
{operations}
</main>
</body>
</html>
"""


def as_page(description: dict[str, Any]) -> str:
    """HTML of an OpenAPI description."""
    info = description["info"]
    operations = [
        _operation(method, path, operation, description["components"]["schemas"])
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    return _PAGE.format(
        title=html.escape(info["title"]),
        description=_paragraphs(info["description"]),
        operations="\n".join(operations),
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = operation["responses"]["200"].get("content", {})
    parts = [
        f'<section><h2><code class="method">{method.upper()}</code> '
        f"<code>{html.escape(path)}</code></h2>",
        f"<p class='summary'>{html.escape(operation['summary'])}</p>",
        _paragraphs(operation.get("description", "")),
    ]
    if operation.get("parameters"):
        rows = [
            (each["name"], _kind(each["schema"], schemas), each.get("description", ""))
            for each in operation["parameters"]
        ]
        parts.append(_table("Parameters", ("name", "values", ""), rows))
    rows = [
        (status, answer.get("description", ""), "")
        for status, answer in operation["responses"].items()
    ]
    rows[0] = (rows[0][0], rows[0][1], ", ".join(content))
    parts.append(_table("Answers", ("status", "meaning", "type"), rows))
    return "\n".join([*parts, "</section>"])


def _kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The values that a schema allows, in words."""
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return ", ".join(_kind(each, schemas) for each in kinds)
    if "$ref" in schema:
        return _kind(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return str(schema.get("pattern") or schema.get("type"))


def _table(caption: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(
        f"<tr><th scope='row'><code>{html.escape(first)}</code></th>"
        + "".join(f"<td>{_marked(each)}</td>" for each in others)
        + "</tr>\n"
        for first, *others in rows
    )
    return (
        f'<div class="wide"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{_marked(part)}</p>" for part in text.split("\n\n") if part.strip())


def _marked(text: str) -> str:
    """With the one mark of Markdown that descriptions have."""
    return re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text))
