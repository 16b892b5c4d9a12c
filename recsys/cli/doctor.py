"""The verb doctor: what is installed, what is missing, and the command that installs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated

import typer

from recsys.cli.application import SETUP, app
from recsys.cli.console import out

REQUIRED = (
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
"""The packages that recsys cannot run without."""
EXTRAS = {
    "spark": ("pyspark", "the Spark engine"),
    "tune": ("optuna", "recsys tune"),
    "mlflow": ("mlflow", "recsys track"),
    "deep": ("jax", "the training of sasrec"),
}
"""Extra of ``pip install 'recsys[EXTRA]'`` -> (a module that it installs, what needs it)."""

Finding = tuple[str, str, str]
"""The result of a check: its state (``ok``, ``missing`` or ``broken``), its subject, and a detail.

If the state is not ``ok``, the detail says what to do or what is wrong.
"""


@app.command(rich_help_panel=SETUP)
def doctor(
    spark: Annotated[bool, typer.Option(help="Also start Spark and run a small job: about ten seconds.")] = False,
) -> None:
    """Print what is installed, what is missing, and the command that installs it.

    A missing extra is not an error: the local engine needs none of them. The exit code is 2 if
    something is broken.

    Example: recsys doctor --spark
    """
    findings = list(check_installation())
    if spark:
        findings.append(_check_spark())
    for state, name, detail in findings:
        out.print(f"{state:>7}  {name:<16} {detail}")
    if any(state == "broken" for state, _, _ in findings):
        raise typer.Exit(2)


def check_installation() -> Iterator[Finding]:
    """Yield one finding per check of Python, packages, kernels, extras and Java.

    Spark is not started.
    """
    version = sys.version_info
    python = f"{version.major}.{version.minor}.{version.micro} ({sys.executable})"
    python_state = "ok"
    if version < (3, 11):
        python_state = "broken"
    yield python_state, "Python", python
    for name in REQUIRED:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "broken", name, "pip install recsys installs it"
    yield _check_kernels()
    # MLflow is installed as the distribution mlflow or as mlflow-skinny.
    packages = metadata.packages_distributions()
    for extra, (module, need) in EXTRAS.items():
        if find_spec(module):
            yield "ok", f"[{extra}]", f"{module} {metadata.version(packages[module][0])}"
        else:
            yield "missing", f"[{extra}]", f"{need} needs it:  pip install 'recsys[{extra}]'"
    yield _check_java()


def _check_kernels() -> Finding:
    """Check whether numba compiles and runs one function."""
    import numpy as np

    try:
        # The import loads numba and its cache, so a broken installation may fail here already.
        from recsys.kernels import select_top_k

        scores = np.array([[1.0, 3.0, 2.0]], dtype=np.float32)
        no_history = np.zeros(2, dtype=np.int64)
        items, _ = select_top_k(scores, no_history, np.zeros(0, dtype=np.int32), 2)
        if items.tolist() != [[1, 2]]:
            return (
                "broken",
                "kernels",
                f"a compiled function returned {items.tolist()}: reinstall numba",
            )
    except Exception as error:
        return (
            "broken",
            "kernels",
            f"numba cannot compile ({error}): reinstall it; is the cache folder writable?",
        )
    return "ok", "kernels", f"compiled, {os.cpu_count()} cores"


def _check_java() -> Finding:
    """Check whether there is a Java installation that Spark can use."""
    from recsys.errors import MissingExtra
    from recsys.java import find_java

    try:
        java = find_java()
    except MissingExtra as error:
        # Only Spark needs Java: without PySpark, its absence breaks nothing.
        if find_spec("pyspark"):
            return "broken", "Java", str(error)
        return "missing", "Java", str(error)
    return (
        "ok",
        "Java",
        f"{java.version} ({java.home})" + "".join(f"; {note}" for note in java.notes),
    )


def _check_spark() -> Finding:
    """Check whether Spark starts and runs a small job."""
    try:
        from recsys.config import SparkSettings
        from recsys.spark.session import session

        spark = session(SparkSettings(master="local[1]", driver_memory="1g"))
        total = spark.range(10).selectExpr("sum(id) AS total").first()
        spark.stop()
    except Exception as error:
        return "broken", "Spark", str(error).splitlines()[0]
    if not total or total["total"] != 45:
        return "broken", "Spark", "ran a job on local[1]"
    return "ok", "Spark", "ran a job on local[1]"
