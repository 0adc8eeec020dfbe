r"""Tutorials as the site shows them: each is run as a notebook, and its outputs come into the page.

A tutorial is a page of docs/tutorials. Its blocks of Python are the cells of one notebook, which runs in a folder
of its own while the site is built. An error, or a line on the standard error, ends the build.
"""

import base64
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = "tutorials/"
CELL = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")  # leads to another page of the site
PICTURES = {"image/png": "png", "image/gif": "gif"}
LONGEST = 300  # seconds of a cell
pages: dict[str, str] = {}  # those of this build, with outputs


def notebook(page: str) -> NotebookNode:
    r"""Returns a page as a notebook: its blocks of Python are the cells of code."""

    cells = []
    for i, text in enumerate(CELL.split(page)):
        make = nbformat.v4.new_code_cell if i % 2 else nbformat.v4.new_markdown_cell
        if text.strip():
            cells.append(make(text.strip(), id=f"cell-{i}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(book: NotebookNode) -> NotebookNode:
    r"""Returns a notebook with the outputs of its cells."""

    with TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        client = NotebookClient(
            book,
            timeout=LONGEST,
            kernel_name="python3",
            resources=where,
            extra_arguments=["--log-level=ERROR"],  # kernels listen on this machine alone
        )
        return client.execute()


def markdown(book: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    r"""Returns a notebook that was run as a page, and the pictures that belong to it.

    Arguments:
        book: The notebook.
        name: The name of the page, which those of its pictures begin with.
    """

    parts, pictures = [], {}
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = _shown(output)
            kind = next((kind for kind in PICTURES if kind in data), None)
            if kind is None:
                parts.append(f"```{{.text .output}}\n{data['text/plain'].rstrip()}\n```")
                continue
            file = f"{name}_{len(pictures) + 1}.{PICTURES[kind]}"
            pictures[file] = base64.b64decode(data[kind])
            parts.append(f"![What the lines above draw]({file})")
    return "\n\n".join(parts) + "\n", pictures


def _shown(output: NotebookNode) -> dict[str, str]:
    r"""What a cell printed or returned, by its kind; what it wrote to the standard error is refused."""

    if output.output_type != "stream":
        return dict(output.data)
    if output.name == "stderr":
        raise ValueError(f"a tutorial writes to the standard error:\n{output.text}")
    return {"text/plain": output.text}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    r"""Runs all tutorials, as many at once as there are cores."""

    sources = [file for file in files.documentation_pages() if file.src_uri.startswith(FOLDER)]
    books = {file.src_uri: notebook(file.content_string) for file in sources}
    plain = {uri: nbformat.writes(_alone(book)) for uri, book in books.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(run, books.values()))
    for uri, book in zip(books, done, strict=True):
        pages[uri], pictures = markdown(book, Path(uri).stem)
        here = {FOLDER + name: content for name, content in pictures.items()}
        for name, content in {**here, uri.replace(".md", ".ipynb"): plain[uri]}.items():
            files.append(File.generated(config, name, content=content))
    return files


def _alone(book: NotebookNode) -> NotebookNode:
    r"""A notebook without its links, which lead nowhere from the reader's folder."""

    cells = [dict(cell, source=LINK.sub(r"\1", cell.source)) for cell in book.cells]
    return nbformat.from_dict({**book, "cells": cells})


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    r"""Puts the outputs of a tutorial into its page, and a link to the notebook at its end."""

    if page.file.src_uri not in pages:
        return markdown
    name = Path(page.file.src_uri).stem
    return f"{pages[page.file.src_uri]}\n[This page as a notebook]({name}.ipynb)\n"
