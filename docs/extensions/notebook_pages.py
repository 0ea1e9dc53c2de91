"""Write one page per notebook: text, code and, from the copy that its test executed, outputs.

`tests/project/test_notebooks.py` leaves the executed copies in `build/notebooks`. A notebook whose
copy is missing or older is shown without outputs.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "notebooks"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
logger = logging.getLogger(__name__)


def write_pages(app: Sphinx) -> None:
    """Write the pages and pictures into the folder of generated files."""
    folder = Path(app.srcdir) / "notebooks" / "generated"
    folder.mkdir(exist_ok=True)
    for source in sorted(SOURCES.glob("*.ipynb")):
        notebook = _with_outputs(source)
        _replace(folder / f"{source.stem}.md", _page(notebook, source, folder).encode())


def _with_outputs(source: Path) -> NotebookNode:
    """Read the executed copy of a notebook, or the notebook if no copy has the same code."""
    notebook = nbformat.read(source, as_version=4)
    copy = EXECUTED / source.name
    if copy.exists():
        executed = nbformat.read(copy, as_version=4)
        if [cell.source for cell in executed.cells] == [cell.source for cell in notebook.cells]:
            return executed
    logger.info("%s has no executed copy: its page has no outputs", source.name)
    return notebook


def _page(notebook: NotebookNode, source: Path, folder: Path) -> str:
    parts, pictures = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"`(\d\d_\w+)\.ipynb`", r"[`\1`](\1.md)", cell.source))
            continue
        parts.append(_fence(cell.source, "python"))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                picture = folder / f"{source.stem}_{pictures}.png"
                pictures += 1
                _replace(picture, base64.b64decode(data["image/png"]))
                parts.append(f"![Output of the cell above]({picture.name})")
                continue
            text = output.get("text") or data.get("text/plain", "")
            if text.strip():
                parts.append(_fence(COLOUR.sub("", text).rstrip(), "text"))
    note = f"*The notebook itself: `notebooks/{source.name}`.*"
    first, _, rest = "\n\n".join(parts).partition("\n")
    return f"{first}\n\n{note}\n{rest}\n"


def _fence(text: str, language: str) -> str:
    return f"````{language}\n{text}\n````"


def _replace(path: Path, content: bytes) -> None:
    """Write a file if its content changes, so that Sphinx need not read it again."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
