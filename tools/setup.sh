#!/usr/bin/env bash
# Brings libtorch into .torch, once. Needs cargo, a C++ compiler, nasm and python3 with pip; says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
RUST_MINOR=90

missing() { # what, how to get it
    echo "setup: $1 is missing. Install it with: $2" >&2
    exit 1
}

command -v cargo >/dev/null || missing "cargo (Rust 1.$RUST_MINOR or newer)" "see https://rustup.rs"
minor=$(rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
[ "$minor" -ge "$RUST_MINOR" ] 2>/dev/null || missing "Rust 1.$RUST_MINOR or newer ($(rustc --version) is here)" "rustup update stable"
command -v "${CXX:-c++}" >/dev/null || missing "a C++ compiler" "apt-get install g++ (or dnf install gcc-c++)"
# Without it the build works too, but libjpeg-turbo comes out without its vector instructions, several times slower.
if [ "$(uname -m)" = x86_64 ]; then
    command -v nasm >/dev/null || missing "nasm, the assembler of libjpeg-turbo" "apt-get install nasm (or dnf install nasm)"
fi

if [ -n "${LIBTORCH:-}" ]; then
    echo "setup: using the libtorch of LIBTORCH=$LIBTORCH"
    exit 0
fi
if grep -qs "^__version__ = '$TORCH" .torch/torch/version.py && [ -e .torch/torch/lib/libtorch_cpu.so ]; then
    exit 0
fi

command -v python3 >/dev/null || missing "python3" "apt-get install python3 python3-pip"
python3 -m pip --version >/dev/null 2>&1 || missing "pip for python3" "apt-get install python3-pip"
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "setup: there is no ready-made libtorch for $(uname -s) $(uname -m) here; point LIBTORCH at a libtorch $TORCH" >&2
    exit 1
fi
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
if [ "$free" -lt 3 ]; then
    echo "setup: libtorch needs 3 GB of disk for its set-up and $free GB are free here" >&2
    exit 1
fi

echo "setup: fetching libtorch $TORCH into .torch (530 MB, 1.2 GB on disk) ..."
# Aside first: an interrupted download leaves no half-filled .torch. The wheels are named for Python 3.12 whatever
# python3 is here, because nothing of them is ever imported.
rm -rf .torch.new
trap 'rm -rf .torch.new' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target .torch.new \
    --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
    "torch==$TORCH" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
rm -rf .torch
mv .torch.new .torch
echo "setup: libtorch $TORCH is in .torch"
