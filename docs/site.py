"""Hooks of MkDocs: files outside of docs/ that documents link to are part of the site; no page needs a network."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)[^)]*\)")
FETCHED, OURS = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside that a page links to, as plain text; of a folder its names."""
    docs = Path(config.docs_dir)
    pages = [(docs / page.src_uri).read_text(encoding="utf-8") for page in files.documentation_pages()]
    for path in sorted({path for page in pages for path in OUTSIDE.findall(page)}):
        linked = docs.parent / path
        names = sorted(entry.name for entry in linked.iterdir()) if linked.is_dir() else None
        text = "\n".join(names) if names else linked.read_text(encoding="utf-8")
        files.append(File.generated(config, _inside(path), content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Link to those files where they are now."""
    return OUTSIDE.sub(lambda link: f"]({_inside(link[1])})", markdown)


def on_post_page(output: str, **_: object) -> str:
    """Load the script that search needs from the site itself."""
    return _offline(output)


def on_post_template(output_content: str, **_: object) -> str:
    """Likewise in what is no page: 404.html."""
    return _offline(output_content)


def _inside(path: str) -> str:
    return f"source/{path.rstrip('/')}.txt"


def _offline(html: str) -> str:
    html = html.replace(FETCHED, OURS)
    if asked := re.search(r'src="(https?://[^"]+)"', html):
        raise PluginError(
            f"a page would fetch {asked[1]}; put a copy in docs/assets/ and name it in docs/site.py"
        )
    return html
