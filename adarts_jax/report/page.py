"""One self-contained HTML page about a run: no script, no reference to anything else.

Every text that comes from a file is escaped. The pictures are put into the page as
drawn by this package a moment ago, never as found in the directory.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from adarts_jax.errors import UserError
from adarts_jax.report.metrics_file import Record, epoch_series
from adarts_jax.report.pictures import Picture, draw_pictures
from adarts_jax.report.run_files import RunFiles, read_run
from adarts_jax.space.cost import derived_network_cost
from adarts_jax.space.genotype import Genotype

_STYLE: Final = """
:root { color: #1f2933; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.note, figcaption { color: #52606d; }
figure { margin: 0 0 1.2rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
pre { padding: .8rem 1rem; background: #f5f7fa; white-space: pre-wrap; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #e4e7eb; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
"""

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="note">{status}</p>
{sections}
</body>
</html>
"""


def report_run(run_directory: str | Path, *, result: Genotype | None = None) -> Path:
    """Draw the pictures of a run, finished or not, and write its page.

    Args:
      run_directory: the ``--out`` of a run.
      result: genotype of the run, which may write it once everything else is there;
        None for what is in the directory.

    Returns:
      The path of the page.

    Raises:
      UserError: not a run directory, a damaged file in it, or no way to write there.
    """
    run = read_run(run_directory, result=result)
    try:
        return write_report(run, draw_pictures(run))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"cannot write {error.filename or str(run.directory)!r}: {reason}; make "
            "room there, or report on a copy of the run"
        ) from error


def write_report(run: RunFiles, pictures: Sequence[Picture]) -> Path:
    """Write ``report.html`` into the run directory.

    Args:
      run: what to report on.
      pictures: the pictures drawn for it; their SVG files go into the page.

    Returns:
      The path of the page.
    """
    path = run.directory / "report.html"
    page = render_page(run, pictures)
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def render_page(run: RunFiles, pictures: Sequence[Picture]) -> str:
    """Return the text of the page; see `write_report`."""
    tables = {
        "Last epoch": last_values(run.records),
        "Configuration": flatten(run.config),
        "Manifest": flatten(run.manifest),
    }
    sections = [
        *(_figure(picture) for picture in pictures),
        _genotype(run),
        *(_table(title, rows) for title, rows in tables.items()),
    ]
    return _PAGE.format(
        title=html.escape(run.directory.resolve().name),
        style=_STYLE,
        status=_status(run),
        sections="\n".join(filter(None, sections)),
    )


def _status(run: RunFiles) -> str:
    """Say how far the run is."""
    epochs, _ = epoch_series(run.records)
    seen = f"{len(epochs)} epochs recorded"
    if run.is_finished:
        return f"Finished; {seen}."
    shown = run.genotype_file or "no genotype yet"
    return f"Not finished; {seen}. Genotype shown: {html.escape(shown)}."


def _figure(picture: Picture) -> str:
    """Return a picture as inline SVG."""
    svg = picture.stem.with_name(f"{picture.stem.name}.svg").read_text("utf-8")
    label = html.escape(picture.title)
    return f'<figure aria-label="{label}">\n{inline_svg(svg)}</figure>'


def inline_svg(svg: str) -> str:
    """Return an SVG document as an element of an HTML page.

    Leaves out the prologue, which names a DTD, and the serial element names, which
    every picture uses again; names that are referred to are hashes and stay.
    """
    element = svg[svg.index("<svg") :]
    return re.sub(r' id="[\w.]*_\d+"', "", element)


def _genotype(run: RunFiles) -> str:
    """Return the genotype as text, and what the derived network costs."""
    if run.genotype is None:
        return ""
    cost = derived_network_cost(run.genotype)
    text = html.escape(run.genotype.to_text().replace("], ", "],\n    "))
    return (
        f"<h2>Genotype</h2>\n<pre>{text}</pre>\n"
        '<p class="note">As a CIFAR-10 network of 20 cells and 36 channels, without '
        f"auxiliary head: {cost.parameters:,} parameters, "
        f"{cost.multiply_adds / 1e6:,.0f} million multiply-adds per image.</p>"
    )


def last_values(records: Sequence[Record]) -> dict[str, str]:
    """Return the quantities of the last epoch, with six significant digits.

    >>> last_values([{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 0.123456789}])
    {'epoch': '1', 'loss': '0.123457'}
    """
    epochs, series = epoch_series(records)
    if not epochs:
        return {}
    values = {key: f"{numbers[-1]:.6g}" for key, numbers in series.items()}
    return {"epoch": str(epochs[-1])} | {k: v for k, v in values.items() if v != "nan"}


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings under dotted names, as JSON text; strings stay plain.

    >>> flatten({"seed": 2, "data": {"name": "cifar10", "flip": True}})
    {'seed': '2', 'data.name': 'cifar10', 'data.flip': 'true'}
    """
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            text = (
                inner
                if isinstance(inner, str)
                else json.dumps(inner, ensure_ascii=False)
            )
            flat[prefix + key] = text
    return flat


def _table(title: str, rows: Mapping[str, str]) -> str:
    """Return a heading and a table of names and values, nothing without rows."""
    if not rows:
        return ""
    lines = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    ]
    body = "\n".join(lines)
    return f"<h2>{html.escape(title)}</h2>\n<table>\n{body}\n</table>"
