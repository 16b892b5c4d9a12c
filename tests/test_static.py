"""What reads the code without running it: ruff's rules, ruff's layout, mypy. Seconds, so ``make quick`` has them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("words", ["mypy", "ruff check .", "ruff format --check ."])
def test_a_reader_of_the_code_finds_nothing(words):
    done = subprocess.run([sys.executable, "-m", *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
