"""The verb demo: the whole flow on made-up data."""

from __future__ import annotations

from pathlib import Path

from recsys.cli.application import RUNS, app
from recsys.cli.console import log
from recsys.cli.run import run

DEMO_DATA = Path("runs/demo-data")


@app.command(rich_help_panel=RUNS)
def demo() -> None:
    """Run the whole flow on a made-up world of films: no download, no Java.

    Example: recsys demo
    """
    from recsys.data.synthetic import film_world, write_world
    from recsys.data.writing import new_world_folder

    log.print(f"making a world of films in {DEMO_DATA} …")
    with new_world_folder(DEMO_DATA) as folder:
        write_world(film_world(), folder)
    run(str(Path(__file__).with_name("demo.toml")))
