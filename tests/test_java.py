"""Which Java is taken, and what is said when none will do. Fake programs answer as real ones do."""

import pytest

from recsys.errors import MissingExtra
from recsys.java import find_java


def fake(home, version):
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!/bin/sh\necho '    java.home = {home}' >&2\necho '    java.specification.version = {version}' >&2\n"
    )
    program.chmod(0o755)
    return home


def test_java_home_comes_first_then_the_path_then_the_usual_folders(tmp_path):
    home, path, folder = (fake(tmp_path / name, 17) for name in ("home", "path", "usual"))
    usual = (str(tmp_path / "usual*"),)
    everything = {"JAVA_HOME": str(home), "PATH": str(path / "bin")}
    assert find_java(everything, usual).home == str(home)
    assert find_java({"PATH": str(path / "bin")}, usual).home == str(path)
    assert find_java({"PATH": "/nonexistent"}, usual).home == str(folder)


def test_an_old_or_broken_one_is_passed_over_and_told(tmp_path):
    old, good = fake(tmp_path / "old", "1.8"), fake(tmp_path / "good", 21)
    found = find_java({"JAVA_HOME": str(old), "PATH": str(good / "bin")}, ())
    assert (found.home, found.version) == (str(good), 21)
    assert f"JAVA_HOME={old} is Java 8" in found.notes[0]
    found = find_java({"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(good / "bin")}, ())
    assert "has no Java that runs" in found.notes[0]


def test_none_at_all_says_what_to_type(tmp_path):
    with pytest.raises(MissingExtra, match=r"needs Java 17 or newer.*(type:|Type:|Install)"):
        find_java({"PATH": str(tmp_path)}, ())
