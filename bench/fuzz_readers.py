"""A hundred thousand files broken at random, read one after the other: `python bench/fuzz_readers.py [FILES]`."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from results import table, write_section

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz import check, mutate, seeds


def main(files: int) -> None:
    """Read ``files`` broken files, an equal share of each format; stop at the first that is mishandled."""
    rng, rows = np.random.default_rng(2026), []
    with tempfile.TemporaryDirectory() as folder:
        for name, clean in seeds().items():
            count = {"read": 0, "refused": 0}
            for number in range(files // len(seeds())):
                data = mutate(clean, rng)
                path = Path(folder, name)
                path.write_bytes(data)
                try:
                    count[check(path)] += 1
                except Exception:
                    print(f"{name}, file {number}: {data!r}", file=sys.stderr)
                    raise
            rows.append([name, *(f"{number:,}" for number in (sum(count.values()), count["read"], count["refused"]))])
    body = (
        "One to four random accidents in a clean file of 30 rows. Every file is either read, and then rows read + rows"
        " refused = rows present, counted by other means, and every accepted cell of a CSV or TSV file is the one that"
        " Python's csv module reads; or refused whole with a message that names it. No file led to another exception."
        "\n\n" + table(["file", "broken files", "read", "refused whole"], rows)
    )
    write_section("fuzz_readers", "Readers under fuzz", f"python bench/fuzz_readers.py {files}", body)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
