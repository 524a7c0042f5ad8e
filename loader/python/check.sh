#!/usr/bin/env bash
# Builds the Python package, installs it into a virtual environment, and runs its tests.
#
#   loader/python/check.sh             with NumPy, PyArrow, DuckDB and Polars; audits the wheel (`./check --python`)
#   loader/python/check.sh --engines   with PyTorch, Spark, Ray and others, and with the package of `ingest` (`./check --engines`)
#
# TRAINER_PYTHON=/path/to/python is used instead of python3, with the packages that it has. Tests of what is missing are skipped.
# Needs the Python index, once; without it, everything is skipped. In CI, what is missing fails.
set -euo pipefail
cd "$(dirname "$0")"

packages=(maturin==1.16.0 pytest==9.2.0 numpy==2.4.6 pyarrow==26.0.1)
# Each group is installed on its own: one that cannot be had leaves the others.
groups=() tests=(tests/test_*.py) kind=python
case "${1:-}" in
    '') packages+=(duckdb==2.0.1 polars==2.1.0 twine==7.0.0 abi3audit==0.0.26 auditwheel==6.8.2) ;;
    --engines)
        kind=engines
        tests=(tests/test_torch.py tests/engines)
        groups=(
            "pandas==3.0.5 pyspark==4.3.0"
            "duckdb==2.0.1"
            "ray[data]==2.60.0"
            "datasets==5.2.0"
            "torch==2.11.0 torchdata==0.11.0 accelerate==1.15.0 pytorch-lightning==2.6.6"
            "open_clip_torch==3.3.0 torchvision==0.26.0"
        )
        ;;
    *) echo "check.sh: unknown argument $1" >&2; exit 2 ;;
esac
python=${TRAINER_PYTHON:-python3}
target=${CARGO_TARGET_DIR:-../../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
environment=$target/$kind
bin=$environment/bin

pip() { "$bin/python" -m pip "$1" --disable-pip-version-check --quiet "${@:2}"; }

# Says why something is left out, or, in CI, ends with it.
without() {
    [ -z "${CI:-}" ] || { echo "$1" >&2; exit 1; }
    echo "skipped: $1"
}

install() {
    local wanted
    wanted=$("$python" -c 'import sys; print(sys.executable, sys.version)'; echo "${packages[*]}")
    [ "$(cat "$environment/made-for" 2>/dev/null)" = "$wanted" ] && return
    rm -rf "$environment"
    "$python" -m venv "$environment" && pip install --only-binary=:all: "${packages[@]}" || return
    if [ -n "${TRAINER_PYTHON:-}" ]; then
        # After its own packages, those of that Python.
        "$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
            >"$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth" || return
    fi
    printf '%s\n' "${packages[@]}" >"$environment/versions"
    echo "$wanted" >"$environment/made-for"
}

if ! install >"$environment.log" 2>&1; then
    without "$python cannot be given ${packages[*]}: $(tail -n 1 "$environment.log")"
    exit 0
fi
for group in ${groups[@]+"${groups[@]}"}; do
    mark=$environment/$(tr -c '[:alnum:]\n' _ <<<"$group")
    [ ! -e "$mark" ] || continue
    # shellcheck disable=SC2086 # several packages; pyspark comes as its source only, which is Python and Java's bytecode
    if pip install --prefer-binary --constraint "$environment/versions" $group >"$environment.log" 2>&1; then
        touch "$mark"
    else
        without "$group cannot be installed: $(tail -n 1 "$environment.log")"
    fi
done
rm -f "$environment.log"

# What ./check has compiled is used again: with the features of dependencies that tests/features gives them.
export PATH="$bin:$PATH"
wheels=$target/wheels/$kind
rm -rf "$wheels"
../../tools/wheel.sh simzss-data "$wheels" --features features --interpreter "$bin/python"
[ "$kind" = python ] || ../../tools/wheel.sh simzss-ingest "$wheels"
pip install --force-reinstall --no-deps "$wheels"/*.whl
[ "$kind" != python ] || "$bin/python" ../../tools/audit_wheels.py "$wheels"/*.whl
"$bin/python" -m pytest -q -rs -p no:cacheprovider "${tests[@]}"
