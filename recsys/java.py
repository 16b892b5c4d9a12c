"""Find a Java installation, which only Spark needs.

This module imports only the standard library, because the set-up runs it before Spark is installed.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import MissingExtra

# Spark 4 is compiled for Java 17.
OLDEST = 17

# Folders in which systems install a Java that is not on PATH.
FOLDERS = (
    "/usr/lib/jvm/*",
    "/opt/java/*",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
)

# Package manager -> command. Distributions have different versions, hence the alternatives.
INSTALL = {
    "apt-get": "apt-get update && { apt-get install -y openjdk-17-jre-headless"
    " || apt-get install -y openjdk-21-jre-headless || apt-get install -y default-jre-headless; }",
    "dnf": "dnf install -y java-21-openjdk-headless || dnf install -y java-latest-openjdk-headless",
    "brew": "brew install openjdk@17",
}


@dataclass(frozen=True)
class Java:
    """A Java installation that runs.

    Attributes:
        home: its folder, the value for ``JAVA_HOME``.
        version: its feature version (17, 21, …).
        notes: why candidates that were tried earlier are not used, one sentence each.
    """

    home: str
    version: int
    notes: tuple[str, ...] = ()


def find_java(environ: Mapping[str, str] = os.environ, folders: tuple[str, ...] = FOLDERS) -> Java:
    """Return the first Java of version 17 or newer that runs.

    ``JAVA_HOME`` is tried first, then ``PATH``, then the folders in which systems install Java.

    Args:
        environ: the environment variables.
        folders: patterns of further folders, with ``*`` for any name.

    Raises:
        MissingExtra: there is none. The message has the command that installs one.
    """
    notes: list[str] = []
    for label, program in _candidates(environ, folders):
        home, version = _query_java(program)
        if version >= OLDEST:
            return Java(home, version, tuple(f"{note}; using {home} instead" for note in notes))
        if version:
            notes.append(f"{label} is Java {version}")
        else:
            notes.append(f"{label} has no Java that runs")
    search_report = ""
    if notes:
        search_report = f" Found: {'; '.join(notes)}."
    raise MissingExtra(f"Spark needs Java {OLDEST} or newer.{search_report} {_install_advice()}")


def install_command() -> str:
    """Return the shell command that installs Java with the package manager of this system.

    It must be run as root, except with Homebrew. It is "" if no known package manager is installed.
    """
    return next((command for manager, command in INSTALL.items() if shutil.which(manager)), "")


def _candidates(environ: Mapping[str, str], folders: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (label for messages, path of the program) for each Java that may be installed."""
    if home := environ.get("JAVA_HOME"):
        yield f"JAVA_HOME={home}", os.path.join(home, "bin", "java")
    if program := shutil.which("java", path=environ.get("PATH", "")):
        yield program, program
    for pattern in folders:
        for home in sorted(glob.glob(pattern)):
            if os.access(program := os.path.join(home, "bin", "java"), os.X_OK):
                yield home, program


def _query_java(program: str) -> tuple[str, int]:
    """Return (java.home, feature version) as a Java program reports them, or ("", 0) if it does not
    run."""
    try:
        answer = subprocess.run(
            [program, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "", 0
    settings = dict(re.findall(r"^\s*(java\.\S+) = (.*)$", answer.stderr + answer.stdout, re.M))
    home = settings.get("java.home", "")
    version = settings.get("java.specification.version", "")
    if answer.returncode or not home or not version:
        return "", 0
    # Up to Java 8 the version is 1.x, and the home is the jre folder inside the JDK.
    if version.startswith("1."):
        return home, int(version[2:])
    return str(Path(home)), int(version)


def _install_advice() -> str:
    """Return a sentence that says how to install Java."""
    command = install_command()
    if command.startswith("brew"):
        return f"Type:  {command}"
    if command:
        return f"As root (or with sudo) type:  sh -c '{command}'"
    return f"Install a JDK or JRE for {sys.platform} (adoptium.net has them) and set JAVA_HOME to its folder."
