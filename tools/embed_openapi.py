#!/usr/bin/env python3
"""Turns the API's description and the pages without scripts into a C file: embed_openapi.py OUTPUT openapi.yaml home.html style.css.
The description becomes JSON, and a page for people."""

import hashlib
import html
import json
import sys
from pathlib import Path

import yaml

METHODS = ("get", "post", "put", "patch", "delete")


class StrictLoader(yaml.SafeLoader):
    """Keys that stand twice are a mistake; dates and the like stay texts."""


def no_doubles(loader, node, deep=False):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            sys.exit(f"{loader.name}, line {node.start_mark.line + 1}: {key!r} stands there twice")
    return {str(loader.construct_object(key, deep=True)): loader.construct_object(value, deep=True) for key, value in node.value}


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, no_doubles)
StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def c_string(name, text):
    lines = []
    for line in text.splitlines(keepends=True):
        data = line.encode()
        for start in range(0, len(data), 120):
            piece = "".join(
                chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in data[start : start + 120]
            )
            lines.append(f'    "{piece}"')
    return f"const char {name}[] =\n" + "\n".join(lines or ['    ""']) + ";\n"


def resolve(document, value):
    while isinstance(value, dict) and "$ref" in value:
        target = document
        for part in value["$ref"].lstrip("#/").split("/"):
            target = target[part]
        value = target
    return value


def schema_text(schema):
    """What a value may be, in a few words."""
    if not isinstance(schema, dict):
        return ""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f'<a href="#schema-{html.escape(name)}">{html.escape(name)}</a>'
    kind = schema.get("type", "")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kind == "array":
        words = "list of " + (schema_text(schema.get("items", {})) or "anything")
        return words
    words = html.escape(words)
    if "enum" in schema:
        words += ": " + ", ".join(f"<code>{html.escape(str(one))}</code>" for one in schema["enum"])
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    if low is not None or high is not None:
        words += f" {low if low is not None else ''}…{high if high is not None else ''}"
    if "default" in schema:
        words += f", else <code>{html.escape(json.dumps(schema['default']))}</code>"
    return words


def table(rows):
    return "<table>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</table>" if rows else ""


def property_rows(schema):
    needed = schema.get("required", [])
    return [
        (f"<code>{html.escape(name)}</code>" + ("" if name not in needed else " *"), schema_text(one), html.escape(one.get("description", "")))
        for name, one in schema.get("properties", {}).items()
    ]


def content_text(document, content):
    out = []
    for media, one in (content or {}).items():
        schema = one.get("schema", {})
        plain = schema if "$ref" not in schema else {}
        out.append(f"<p><code>{html.escape(media)}</code> {schema_text(schema)}</p>" + table(property_rows(plain)))
    return "".join(out)


def operation_text(document, method, path, shared, operation):
    parameters = [resolve(document, one) for one in shared + operation.get("parameters", [])]
    rows = [
        (
            f"<code>{html.escape(one['name'])}</code>" + (" *" if one.get("required") else ""),
            html.escape(one["in"]),
            schema_text(one.get("schema", {})),
            html.escape(one.get("description", "")),
        )
        for one in parameters
    ]
    body = resolve(document, operation.get("requestBody", {}))
    answers = "".join(
        f"<p><code>{html.escape(status)}</code> {html.escape(resolve(document, one).get('description', ''))}</p>"
        + content_text(document, resolve(document, one).get("content"))
        for status, one in operation.get("responses", {}).items()
        if status != "default"
    )
    return (
        f"<details><summary><b>{method.upper()}</b><code>{html.escape(path)}</code>"
        f"<span>{html.escape(operation.get('summary', ''))}</span></summary><div class=\"body\">"
        f"<p>{html.escape(operation.get('description', ''))}</p>"
        + table(rows)
        + (f"<h3>Body</h3>{content_text(document, body.get('content'))}" if body else "")
        + f"<h3>Answers</h3>{answers}</div></details>"
    )


def api_page(document):
    groups = {}
    for path, item in (document.get("paths") or {}).items():
        for method in METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(operation_text(document, method, path, item.get("parameters", []), item[method]))
    schemas = "".join(
        f'<details id="schema-{html.escape(name)}"><summary><code>{html.escape(name)}</code></summary><div class="body">'
        f"<p>{html.escape(one.get('description', ''))}</p>{table(property_rows(one))}</div></details>"
        for name, one in document.get("components", {}).get("schemas", {}).items()
    )
    info = document["info"]
    about = "".join(f"<p>{html.escape(part)}</p>" for part in info.get("description", "").strip().split("\n\n"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(info["title"])} API</title>\n<link rel="stylesheet" href="style.css">\n</head>\n<body>\n<main>\n'
        f'<h1>{html.escape(info["title"])}<span> API</span></h1>\n<p class="lead">{html.escape(info.get("summary", ""))} '
        f'Version {html.escape(str(info["version"]))}; <a href="openapi.json">for programs</a>.</p>\n{about}\n'
        + "\n".join(f"<h2>{html.escape(tag)}</h2>\n" + "\n".join(parts) for tag, parts in groups.items())
        + f"\n<h2>schemas</h2>\n{schemas}\n</main>\n</body>\n</html>\n"
    )


def main():
    output, description, home, style = sys.argv[1:]
    document = yaml.load(Path(description).read_text(encoding="utf-8"), Loader=StrictLoader)
    document["paths"] = document.get("paths") or {}
    texts = {
        "embedded_openapi": json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n",
        "embedded_api_page": api_page(document),
        "embedded_home_page": Path(home).read_text(encoding="utf-8"),
        "embedded_style": Path(style).read_text(encoding="utf-8"),
    }
    texts["embedded_tag"] = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:16]
    lines = ["/* Made by tools/embed_openapi.py: the API's description and the pages without scripts. */", '#include "routes/pages.h"', ""]
    Path(output).write_text("\n".join(lines + [c_string(name, text) for name, text in texts.items()]), encoding="utf-8")


main()
