"""The verb doctor: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer

from recsys.cli.console import out

NEEDED = (
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "numba",
    "scikit-learn",
    "implicit",
    "pydantic",
    "jinja2",
    "matplotlib",
)
EXTRAS = {
    "spark": ("pyspark", "the large path"),
    "tune": ("optuna", "recsys tune"),
    "mlflow": ("mlflow", "recsys track"),
}
"""Extra -> (the module that shows it is there, what needs it)."""

Finding = tuple[str, str, str]
"""(``ok``, ``missing`` or ``broken``; what; remedy or detail)."""


def register(app: typer.Typer) -> None:
    """Add this file's verb."""
    app.command("doctor")(doctor)


def doctor(
    spark: Annotated[bool, typer.Option(help="Also start Spark and run a small job: about ten seconds.")] = False,
) -> None:
    """Say what is installed, what is missing, and the command that mends it; exit 2 when something is broken.

    A missing extra is no fault: the small path needs none of them.

    Example: recsys doctor --spark
    """
    findings = list(examine())
    if spark:
        findings.append(_try_spark())
    for state, what, detail in findings:
        out.print(f"{state:>7}  {what:<16} {detail}", markup=False)
    if any(state == "broken" for state, _, _ in findings):
        raise typer.Exit(2)


def examine() -> Iterator[Finding]:
    """Yield what is found, the cheap checks only."""
    version = sys.version_info
    python = f"{version.major}.{version.minor}.{version.micro} ({sys.executable})"
    yield ("ok" if version >= (3, 11) else "broken"), "Python", python
    for name in NEEDED:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "broken", name, "pip install recsys installs it"
    yield _kernels()
    packages = metadata.packages_distributions()  # mlflow comes as mlflow or as mlflow-skinny
    for extra, (module, need) in EXTRAS.items():
        if find_spec(module):
            yield "ok", f"[{extra}]", f"{module} {metadata.version(packages[module][0])}"
        else:
            yield "missing", f"[{extra}]", f"{need} needs it:  pip install 'recsys[{extra}]'"
    yield _java()


def _kernels() -> Finding:
    """Compile and run one kernel."""
    import numpy as np

    try:
        from recsys.kernels import select_top_k

        row, none = np.array([[1.0, 3.0, 2.0]], dtype=np.float32), np.zeros(2, dtype=np.int64)
        items, _ = select_top_k(row, none, np.zeros(0, dtype=np.int32), 2)
        if items.tolist() != [[1, 2]]:
            return "broken", "kernels", f"a compiled selection gave {items.tolist()}: reinstall numba"
    except Exception as error:
        return "broken", "kernels", f"numba cannot compile ({error}): reinstall it; is the cache folder writable?"
    return "ok", "kernels", f"compiled, {os.cpu_count()} cores"


def _java() -> Finding:
    from recsys.errors import MissingExtra
    from recsys.java import find_java

    try:
        java = find_java()
    except MissingExtra as error:
        return ("broken" if find_spec("pyspark") else "missing"), "Java", str(error)
    return "ok", "Java", f"{java.version} ({java.home})" + "".join(f"; {note}" for note in java.notes)


def _try_spark() -> Finding:
    try:
        from recsys.config import SparkSettings
        from recsys.spark.session import session

        spark = session(SparkSettings(master="local[1]", driver_memory="1g"))
        total = spark.range(10).selectExpr("sum(id) AS total").first()
        spark.stop()
    except Exception as error:
        return "broken", "Spark", str(error).splitlines()[0]
    return ("ok" if total and total["total"] == 45 else "broken"), "Spark", "ran a job on local[1]"
