"""The verb bundle: write one model of a run as a portable folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import DEPLOYMENT, app
from recsys.cli.console import log
from recsys.cli.options import ModelName, OwnModels, run_argument


@app.command(rich_help_panel=DEPLOYMENT)
def bundle(
    run: Annotated[Path, run_argument("A run folder of either engine: a path or a URI.")],
    out: Annotated[Path, typer.Argument(help="The folder of the bundle; an older bundle there is replaced.")],
    model: ModelName = None,
    publish: Annotated[
        Path | None,
        typer.Option(help="A pointer that `recsys serve` watches: the server goes over to this bundle."),
    ] = None,
    own_models: OwnModels = False,
) -> None:
    """Write one model of a run as a portable folder.

    With it, recommend, similar and explain need neither Spark nor Java.

    Example: recsys bundle runs/als_demo bundles/als_demo
    """
    from recsys.saved.bundle import bundle_run
    from recsys.saved.pointer import require_pointer, write_pointer

    if publish is not None:
        require_pointer(publish)
    name = bundle_run(run, out, model)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if publish is not None:
        write_pointer(publish, out)
    log.print(f"{out}: model {name}, {size / 2**20:.1f} MiB")
