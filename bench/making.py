"""Film worlds of more and more users: seconds and peak memory of `recsys data make`: `python bench/making.py [USERS]`.

Worlds of USERS / 100, USERS / 10 and USERS (10,000,000) users with two events each, so that only the users grow.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import table, write_section


def measure(users: int, folder: Path) -> dict[str, float]:
    """Make one world in a process of its own."""
    command = [sys.executable, __file__, "--one", str(users), str(folder)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def one(users: int, folder: str) -> None:
    """Make a world as the command line does, and print what it took."""
    from recsys.cli import run_verb

    started = time.perf_counter()
    sizes = ["--users", str(users), "--items", "2000", "--events", str(2 * users), "--format", "parquet"]
    run_verb(["data", "make", folder, *sizes])
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def main(most: int) -> None:
    """Measure three sizes, and write the section."""
    lines = []
    for users in (most // 100, most // 10, most):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(users, Path(folder))
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print(users, found, file=sys.stderr, flush=True)
        lines.append([f"{users:,}", f"{found['seconds']:.1f}", f"{found['peak']:.2f}", f"{size / 2**20:.0f}"])
    body = (
        "`recsys data make --format parquet`, 2,000 items and two events a user. The same world comes out in pieces of"
        " any size, which the tests check.\n\n" + table(["users", "seconds", "peak GiB", "MiB written"], lines)
    )
    write_section("making", "Making a world", f"python bench/making.py {most}", body)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]), sys.argv[3])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
