"""The verb demo: the whole flow on made-up data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import RUNS, app
from recsys.cli.console import log
from recsys.cli.run import run
from recsys.cli.serve import require_server, serve

DEMO_DATA = Path("runs/demo-data")
DEMO_RUN = Path("runs/demo")
DEMO_BUNDLE = Path("runs/demo-bundle")


@app.command(rich_help_panel=RUNS)
def demo(
    serve_bundle: Annotated[
        bool, typer.Option("--serve", help="Then serve the model of the demo, with a page to try it, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port of the server; 0: any free one.")] = 8000,
) -> None:
    """Run the whole flow on a made-up world of films: no download, no Java.

    Example: recsys demo --serve
    """
    from recsys.data.synthetic import film_world, write_world
    from recsys.data.writing import new_world_folder

    if serve_bundle:
        # The run takes minutes, so what would stop the server is said before it.
        require_server()
        from recsys.serving.server import bind

        bind("127.0.0.1", port).close()
    log.print(f"making a world of films in {DEMO_DATA} …")
    with new_world_folder(DEMO_DATA) as folder:
        write_world(film_world(), folder)
    run(str(Path(__file__).with_name("demo.toml")))
    if serve_bundle:
        from recsys.saved.bundle import bundle_run

        bundle_run(DEMO_RUN, DEMO_BUNDLE)
        serve([f"demo={DEMO_BUNDLE}"], port=port)
