#!/usr/bin/env bash
# Builds the Python package, installs it into a virtual environment, and runs its tests: `./check --python`.
#
# TRAINER_PYTHON=/path/to/python is used instead of python3, with the packages that it has. Tests that need PyTorch are skipped
# where it has none. Needs the Python index, once; without it, everything is skipped, and in CI fails.
set -euo pipefail
cd "$(dirname "$0")"

packages=(maturin==1.16.0 pytest==9.2.0 numpy==2.4.6 pyarrow==26.0.1 duckdb==2.0.1 polars==2.1.0)
python=${TRAINER_PYTHON:-python3}
target=${CARGO_TARGET_DIR:-../../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
environment=$target/python
bin=$environment/bin

install() {
    local wanted
    wanted=$("$python" -c 'import sys; print(sys.executable, sys.version)'; echo "${packages[*]}")
    [ "$(cat "$environment/made-for" 2>/dev/null)" = "$wanted" ] && return
    rm -rf "$environment"
    "$python" -m venv "$environment" &&
        "$bin/python" -m pip install --disable-pip-version-check --quiet --only-binary=:all: "${packages[@]}" || return
    if [ -n "${TRAINER_PYTHON:-}" ]; then
        # After its own packages, those of that Python.
        "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
            >"$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth" || return
    fi
    echo "$wanted" >"$environment/made-for"
}

if ! install >"$environment.log" 2>&1; then
    why="$python cannot be given ${packages[*]}: $(tail -n 1 "$environment.log")"
    [ -z "${CI:-}" ] || { echo "$why" >&2; exit 1; }
    echo "skipped: $why"
    exit 0
fi
rm -f "$environment.log"

# What ./check has compiled is used again: with the features of dependencies that tests/features gives them.
rm -f "$target"/wheels/simzss_data-*.whl
PATH="$bin:$PATH" "$bin/maturin" build --quiet --release --locked --features features --interpreter "$bin/python" --out "$target/wheels"
"$bin/python" -m pip install --disable-pip-version-check --quiet --force-reinstall --no-deps "$target"/wheels/simzss_data-*.whl
"$bin/python" -m pytest -q -rs -p no:cacheprovider tests
