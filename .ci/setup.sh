#!/bin/sh
# Set this clone up, then run a command in it:   sh .ci/setup.sh [COMMAND [ARGUMENT ...]]
#
# 1. a virtual environment in .venv, made by the newest Python that the pins support;
# 2. recsys and the packages of constraints.txt in it;
# 3. Java, which Spark needs.
# What is there already is used as it is. Exit code 2: the machine lacks something; the message says what to type.
# Never calls sudo. PYTHON=... chooses the interpreter.
set -eu

oldest=11 newest=14   # Python 3.x; every pin of constraints.txt has wheels for these
extras=spark,tune,mlflow,deep,serve,postgres,bench,dev

cd "$(dirname "$0")/.."
venv=$PWD/.venv
stamp=$venv/installed   # written last: without it an installation was interrupted and is not believed

# Settings of another Python or Spark must not leak into this one. Without files of compiled Python (containers often set
# this) each process would compile every source again.
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH SPARK_HOME PYSPARK_DRIVER_PYTHON PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { say "$@"; exit 2; }
as_root() { [ "$(id -u)" = 0 ]; }

# ---- the interpreter

# Print "MINOR FOLDER" of an interpreter that can make our environment; otherwise nothing, and why goes to $refused.
probe() {
    answer=$("$1" -c 'if True:
        import sys
        v = sys.version_info
        ready = sys.implementation.name == "cpython" and v[0] == 3
        try:
            import ensurepip, venv
        except ImportError:
            ready = False
        print("%d.%d" % v[:2], v[1] if ready else "-", sys.implementation.name, sys.base_prefix)' 2>/dev/null) || return 1
    read -r version minor kind prefix <<END
$answer
END
    if [ "$kind" != cpython ]; then
        refused="$refused
    $1: $kind, but the packages are built for CPython"
    elif [ "$minor" = - ] && [ "${version%.*}" = 3 ] && [ "${version#*.}" -ge $oldest ] && [ "${version#*.}" -le $newest ]; then
        without_venv=${without_venv:-$version}
        refused="$refused
    $1: Python $version, but without the module venv or ensurepip"
    elif [ "$minor" = - ] || [ "$minor" -lt $oldest ] || [ "$minor" -gt $newest ]; then
        refused="$refused
    $1: Python $version"
    else
        return 0
    fi
    return 1
}

# Set $python to the newest usable interpreter on PATH. Each is run: a pyenv shim exists even where its Python does not.
find_python() {
    refused='' without_venv='' minor=$newest names=''
    if [ -n "${PYTHON:-}" ]; then
        python=$PYTHON
        probe "$python" && return
        [ -n "$refused" ] || refused="
    $PYTHON: does not run"
        return 1
    fi
    while [ "$minor" -ge $oldest ]; do
        names="$names python3.$minor"
        minor=$((minor - 1))
    done
    for name in $names python3 python; do
        old_ifs=$IFS IFS=:
        for folder in $PATH; do
            IFS=$old_ifs
            python=$folder/$name
            if [ -x "$python" ] && probe "$python"; then return; fi
        done
        IFS=$old_ifs
    done
    return 1
}

need_python() {
    find_python && return
    if [ -n "$without_venv" ] && command -v apt-get >/dev/null; then
        package=python$without_venv-venv
        as_root || stop "Python $without_venv lacks the module venv. Type:  sudo apt-get install $package"
        say "installing $package, which Python $without_venv needs to make a virtual environment"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update && apt-get -qq install -y "$package" >&2 ||
            stop "apt-get could not install $package; see its message above."
        find_python && return
    fi
    stop "needs CPython 3.$oldest to 3.$newest with the module venv. Found:${refused:- none on PATH}
    Install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13),
    or name one that PATH does not show:  make ... PYTHON=/path/to/python3.13"
}

# ---- the packages

# What the environment was built from: its place, the extras, and the two files that choose the packages.
recipe() {
    printf '%s\n' "$PWD" "$extras"
    cat pyproject.toml constraints.txt
}

built() { [ -f "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null && { [ -z "${PYTHON:-}" ] || same_python; }; }

same_python() {
    show='import sys; print(sys.base_prefix, sys.version)'
    [ "$("$PYTHON" -c "$show" 2>/dev/null)" = "$("$venv/bin/python" -c "$show")" ]
}

need_packages() {
    if built && recipe | cmp -s - "$stamp"; then return; fi
    # Only a finished environment in the same place may be brought up to date; anything else is made anew.
    if ! built || [ "$(head -n 1 "$stamp")" != "$PWD" ]; then
        need_python
        say "making .venv with $python (Python $version)"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
    rm -f "$stamp"
    say "installing the packages of constraints.txt: some 700 MB, one to a few minutes the first time"
    quiet=--quiet
    if [ -t 2 ]; then quiet=; fi   # at a terminal pip shows its progress
    # Half of an installation would be compiling 12,000 files of which most are never imported.
    "$venv/bin/python" -m pip install $quiet --no-compile --disable-pip-version-check --editable ".[$extras]" \
        --constraint constraints.txt >&2 ||
        stop "pip could not install the packages; its message is above. Call again when the cause is gone (network? disk space?)."
    recipe >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

# ---- Java

java_home() { "$venv/bin/python" -c 'if True:
    import sys
    from recsys.errors import MissingExtra
    from recsys.java import find_java
    try:
        java = find_java()
    except MissingExtra as error:
        sys.exit(f"setup: {error}")
    for note in java.notes:
        print("setup:", note, file=sys.stderr)
    print(java.home)'; }

need_java() {
    if ! as_root; then
        JAVA_HOME=$(java_home) || exit 2
    elif ! JAVA_HOME=$(java_home); then
        command=$("$venv/bin/python" -c 'from recsys.java import install_command; print(install_command())')
        [ -n "$command" ] || exit 2
        say "installing Java:  $command"
        export DEBIAN_FRONTEND=noninteractive
        sh -c "$command" >&2 || stop "that command failed; its message is above."
        JAVA_HOME=$(java_home) || exit 2
    fi
    export JAVA_HOME
}

need_packages
need_java
export PATH="$venv/bin:$PATH" PYSPARK_PYTHON="$venv/bin/python"
if [ $# -gt 0 ]; then exec "$@"; fi
say "ready: $("$venv/bin/python" -V) in .venv, Java in $JAVA_HOME"
