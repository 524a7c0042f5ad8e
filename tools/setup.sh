#!/usr/bin/env bash
# Prepares this checkout for a build: checks for what the build needs and downloads libtorch into .torch, once. ./demo
# and ./check call it; a second run does nothing.
#
#   tools/setup.sh                checks and downloads
#   tools/setup.sh --install      also installs missing system packages with apt-get or dnf (with sudo if not root)
#   tools/setup.sh --no-install   never installs system packages
#   tools/setup.sh --tests        also checks for what ./check uses: rustfmt, clippy, a browser with its driver
#   tools/setup.sh --no-libtorch  downloads nothing: enough for every crate but trainer and tests
#
# Without --install and --no-install, missing system packages are installed where that changes nobody's own machine:
# as root in a container, or where the environment variable CI is "true".
#
# LIBTORCH=/absolute/folder uses a libtorch 2.11 of your own instead of a download.
#
# Platforms: Linux on x86-64 (the one that is tested); Linux on aarch64 and macOS on arm64 (the matching files are
# chosen and downloaded, but no build has been tried there).
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."

TORCH=2.11.0
RUST_MINOR=94
# Everything is downloaded and unpacked here, next to .torch and therefore on the same file system: .torch appears by
# renaming, whole or not at all.
WORK=.torch-tmp

install=auto tests='' libtorch=yes
for argument in "$@"; do
    case "$argument" in
        --install) install=yes ;;
        --no-install) install=no ;;
        --tests) tests=yes ;;
        --no-libtorch) libtorch= ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
        *) echo "setup: unknown option $argument; see tools/setup.sh --help" >&2; exit 2 ;;
    esac
done

# A new rustup changes PATH only for shells that start after it.
command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"

say() { echo "setup: $*"; }
complain() { echo "setup: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }
system=$(uname -s) machine=$(uname -m)
case "$system" in
    Darwin) library=libtorch_cpu.dylib ;;
    *) library=libtorch_cpu.so ;;
esac

# --- Interruption -----------------------------------------------------------------------------------------------------

child='' locked='' log=''
clean_up() {
    [ -z "$log" ] || rm -f "$log"
    # Without the lock, the folder may be another set-up's.
    if [ -n "$locked" ]; then rm -rf "$WORK"; fi
}
interrupted() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    clean_up
    trap - EXIT "$1"
    kill -s "$1" $$
}
trap clean_up EXIT
trap 'interrupted INT' INT
trap 'interrupted TERM' TERM
trap 'interrupted HUP' HUP

# In the background, because bash handles a signal only after a program in the foreground has ended.
run() {
    "$@" &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

# One set-up at a time: the lock is on this file itself, so that nothing has to be created or cleaned up, and it ends
# with the last process that has the file open. macOS has no flock program, but python3 can do the same.
FLOCK='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))'
lock() {
    [ -z "$locked" ] || return 0
    exec 9<tools/setup.sh
    local locker='' status=0
    if has flock; then
        flock -n 9 || status=$?
    elif has python3; then
        locker=python3
        python3 -c "$FLOCK" -n 2>/dev/null || status=$?
    fi
    # Any other status than 1 is a file system without locks.
    if [ "$status" = 1 ]; then
        say "another set-up is running in this folder; waiting until it has ended ..."
        if [ -n "$locker" ]; then run python3 -c "$FLOCK" 2>/dev/null || true; else run flock 9 || true; fi
    fi
    locked=yes
}

# --- libtorch: which one, and is it there? ----------------------------------------------------------------------------

version_of() { # folder: the Python package has version.py, PyTorch's own archive has build-version
    local version
    version=$(sed -nE "s/^__version__ = ['\"]([^'\"]*)['\"].*/\1/p" "$1/version.py" 2>/dev/null) || version=
    [ -n "$version" ] || version=$(cat "$1/build-version" 2>/dev/null) || version=
    echo "$version"
}
is_complete() { # folder
    [ -e "$1/lib/$library" ] && [ -d "$1/include" ] && grep -qs "^__version__ = ['\"]$TORCH" "$1/version.py"
}

problems=
problem() { problems="$problems$*"$'\n'; }

check_own_libtorch() {
    local version found=
    case "$LIBTORCH" in
        /*) ;;
        *) problem "LIBTORCH=$LIBTORCH is a relative path. Set it to an absolute path: the build reads it in several folders."; return ;;
    esac
    if [ ! -d "$LIBTORCH" ]; then
        problem "LIBTORCH=$LIBTORCH does not exist or is not a folder. Correct it, or unset it to download libtorch $TORCH."
        return
    fi
    for found in "$LIBTORCH"/lib/libtorch_cpu.*; do break; done
    if [ ! -e "$found" ]; then
        problem "LIBTORCH=$LIBTORCH is not a libtorch folder: it has no lib/$library. Correct it, or unset it to download libtorch $TORCH."
        return
    fi
    version=$(version_of "$LIBTORCH")
    case "$version" in
        "${TORCH%.*}".*) ;;
        '') problem "LIBTORCH=$LIBTORCH has neither version.py nor build-version, so its version is unknown; the build needs ${TORCH%.*}.x." ;;
        *) problem "LIBTORCH=$LIBTORCH is libtorch $version, and the build needs ${TORCH%.*}.x. Correct it, or unset it to download libtorch $TORCH." ;;
    esac
}

needs_download() { [ -n "$libtorch" ] && [ -z "${LIBTORCH:-}" ] && ! is_complete .torch/torch; }

# Sets what is downloaded on this platform. The packages are those for Python 3.12, whatever python3 is here, because
# nothing of them is ever imported. Both Linux packages are CUDA builds: even their libtorch_cpu.so does not load without
# the CUDA runtime and CUPTI, which are two small packages.
choose_packages() {
    local cuda="nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85"
    case "$system-$machine" in
        Linux-x86_64)
            platforms="manylinux_2_28_x86_64 manylinux_2_25_x86_64 manylinux2014_x86_64"
            packages="torch==$TORCH $cuda" download="530 MB" unpacked="1.2 GB" gigabytes=3 ;;
        Linux-aarch64 | Linux-arm64)
            platforms="manylinux_2_28_aarch64 manylinux_2_25_aarch64 manylinux2014_aarch64"
            packages="torch==$TORCH $cuda" download="430 MB" unpacked="0.9 GB" gigabytes=3 ;;
        Darwin-arm64)
            platforms="macosx_11_0_arm64"
            packages="torch==$TORCH" download="80 MB" unpacked="0.35 GB" gigabytes=1 ;;
        *) return 1 ;;
    esac
}

check_download() {
    choose_packages || {
        problem "the Python package index has no libtorch $TORCH for $system on $machine. Build or find one and set LIBTORCH to its folder."
        return
    }
    if [ -L .torch ]; then
        problem ".torch is a link to $(readlink .torch), which holds no torch $TORCH with lib/$library. Correct the link or remove it."
        return
    fi
    if [ "$system" = Linux ]; then
        local libc
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=
        [[ "$libc" =~ ^glibc\ 2\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 28 ] ||
            problem "libtorch needs glibc 2.28 or newer, and this system has ${libc:-another C library}."
    fi
    local free
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }') || free=
    [ "${free:-$gigabytes}" -ge "$gigabytes" ] ||
        problem "libtorch needs $gigabytes GB of free disk space while it is unpacked ($unpacked afterwards), and this folder has $free GB. Free some space, or set LIBTORCH to the folder of a libtorch $TORCH elsewhere."
}

# --- Programs: what is missing ----------------------------------------------------------------------------------------

missing='' apt='' dnf='' steps=''
wanted='' wanted_apt='' wanted_dnf=''
lack() { # name, apt's packages, dnf's packages
    missing="$missing${missing:+, }$1" apt="$apt${2:+ $2}" dnf="$dnf${3:+ $3}"
}
want() { # the same, for what the build can do without
    wanted="$wanted${wanted:+, }$1" wanted_apt="$wanted_apt${2:+ $2}" wanted_dnf="$wanted_dnf${3:+ $3}"
}
step() { steps="$steps    $*"$'\n'; }

check_rust() {
    local found
    found=$(rustc --version 2>/dev/null) || found=
    if has cargo && [[ "$found" =~ ^rustc\ 1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge "$RUST_MINOR" ]; then
        if [ -n "$tests" ] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
            lack "rustfmt and clippy" "" ""
            step "rustup component add rustfmt clippy"
        fi
        return
    fi
    if has rustup; then
        lack "Rust 1.$RUST_MINOR or newer (this is ${found:-no rustc})" "" ""
        step "rustup update stable && rustup default stable"
    else
        lack "Rust 1.$RUST_MINOR or newer (${found:+this is $found, }from https://rustup.rs)" "" ""
        has curl || lack "curl (for Rust's installer)" curl curl
        step "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\""
    fi
}

has_browser() { { has chromium || has chromium-browser || has google-chrome; } && has chromedriver; }

look_around() {
    missing='' apt='' dnf='' steps='' wanted='' wanted_apt='' wanted_dnf=''
    # CC and CXX may hold options too.
    local cc=${CC:-cc} cxx=${CXX:-c++}
    has "${cc%% *}" || lack "a C compiler (${cc%% *})" gcc gcc
    has "${cxx%% *}" || lack "a C++ compiler (${cxx%% *})" g++ gcc-c++
    if ! has python3; then
        lack python3 python3 python3
        needs_download && lack "pip for python3" python3-pip python3-pip
    elif needs_download && ! python3 -m pip --version >/dev/null 2>&1 && ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        lack "pip for python3" python3-pip python3-pip
    fi
    check_rust
    # Elsewhere the compiler assembles the JPEG library's SIMD code.
    case "$machine" in
        x86_64 | amd64) has nasm || want nasm nasm nasm ;;
    esac
    # Hundreds of megabytes, so not for anybody who has only not forbidden it.
    if [ -n "$tests" ] && ! has_browser && { [ "$install" = yes ] || [ "${CI:-}" = true ]; }; then
        want "chromium and chromedriver" "chromium chromium-driver" "chromium chromedriver"
    fi
}

# --- Programs: installing them ----------------------------------------------------------------------------------------

is_root() { [ "$(id -u)" = 0 ]; }
is_container() {
    [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ -e /run/systemd/container ] || [ -n "${container:-}" ] ||
        grep -qsE 'docker|kubepods|containerd|libpod|lxc' /proc/1/cgroup
}
# Prints why system packages may be installed; fails where they may not.
permission() {
    case "$install" in
        yes) echo "--install" ;;
        no) return 1 ;;
        *)
            if [ "${CI:-}" = true ]; then
                echo "CI=true"
            elif is_root && is_container; then
                echo "root in a container; --no-install prevents it"
            else
                return 1
            fi ;;
    esac
}
manager() {
    if has apt-get; then echo apt-get; elif has dnf; then echo dnf; else return 1; fi
}
sudo_for() { # nothing for root
    if is_root; then return; fi
    if [ "$install" = yes ]; then echo sudo; else echo "sudo -n"; fi
}

# Prints the one command that installs these packages.
command_for() { # apt's packages, dnf's packages
    local sudo=''
    is_root || sudo='sudo '
    case "$(manager)" in
        apt-get) echo "${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends$1" ;;
        dnf) echo "${sudo}dnf install -y$2" ;;
        *) return 1 ;;
    esac
}

updated=
run_manager() { # packages
    local sudo
    sudo=$(sudo_for)
    # shellcheck disable=SC2086 # words to be split
    case "$(manager)" in
        apt-get)
            if [ -z "$updated" ]; then
                run $sudo apt-get update -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 || true
                updated=yes
            fi
            run $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 -o Acquire::http::Timeout=20 $1 ;;
        dnf) run $sudo dnf install -y -q $1 ;;
    esac
}
install_packages() { # packages, why it is allowed
    log=$(mktemp)
    say "installing $1 with $(manager) ($2) ..."
    if run_manager "$1" </dev/null >"$log" 2>&1; then
        say "installed $1"
    else
        complain "$(manager) could not install $1:"
        tail -n 5 "$log" | sed 's/^/    /' >&2
    fi
    rm -f "$log"
}

install_missing() {
    local why
    [ -n "$apt$wanted_apt" ] || return 0
    why=$(permission) || return 0
    manager >/dev/null || return 0
    if ! is_root && ! has sudo; then
        complain "cannot install system packages: this user is not root, and there is no sudo"
        return 0
    fi
    lock
    local required=$apt optional=$wanted_apt package
    if [ "$(manager)" = dnf ]; then required=$dnf optional=$wanted_dnf; fi
    [ -z "$required" ] || install_packages "${required# }" "$why"
    # One by one: a package that this system does not have must not keep back the others.
    for package in $optional; do install_packages "$package" "$why"; done
    hash -r
    look_around
}

# One message for all that is missing.
report() {
    [ -n "$missing$problems" ] || return 0
    if [ -n "$missing" ]; then
        complain "missing: $missing${wanted:+; optional: $wanted}"
        complain "to install:"
        if [ -n "$apt" ]; then
            if [ "$system" = Darwin ]; then
                echo "    xcode-select --install" >&2
            elif ! command_for "$apt$wanted_apt" "$dnf$wanted_dnf" | sed 's/^/    /' >&2; then
                echo "    with this system's package manager: $missing${wanted:+, $wanted}" >&2
            fi
        fi
        printf %s "$steps" >&2
        if [ -n "$apt" ] && [ "$install" = auto ] && manager >/dev/null; then
            complain "The same command with --install runs $(manager) for you."
        fi
    fi
    [ -z "$problems" ] || printf %s "$problems" | sed 's/^/setup: /' >&2
    exit 1
}

tell_what_is_slower() {
    case "$machine" in
        x86_64 | amd64) ;;
        *) return 0 ;;
    esac
    if ! has nasm; then
        # loader/jpeg with and without nasm, 200 COCO photos, one core of an Intel Xeon, 2026-11-29: decoding 499 and
        # 299 images/s, encoding 799 and 194 images/s (best of 12 turns each).
        say "nasm is missing, so the JPEG library is built without SIMD instructions. Everything works, but decoding a JPEG"
        say "    file takes 1.7 times as long and encoding one 4 times as long."
        say "To get the speed back: $(command_for " nasm" " nasm" || echo "install nasm")"
        say "    and run the same command again: it rebuilds the JPEG library (by cargo clean -p mozjpeg-sys --release)."
    fi
}
tell_about_browser() {
    [ -n "$tests" ] && ! has_browser || return 0
    say "chromium or chromedriver is missing, so the tests that open a browser are skipped. To run them: $(
        command_for " chromium chromium-driver" " chromium chromedriver" || echo "install both")"
}

# The JPEG library's build script does not notice that nasm has been installed since; its last output says that it was
# missing.
rebuild_jpeg() {
    has nasm || return 0
    local output target=${CARGO_TARGET_DIR:-target}
    for output in "$target"/release/build/mozjpeg-sys-*/output; do
        if grep -qs "NASM not installed" "$output"; then
            say "nasm is installed now: the JPEG library and what uses it are built again"
            cargo clean --quiet --release -p mozjpeg-sys
            return
        fi
    done
}

# --- The download -----------------------------------------------------------------------------------------------------

# pip, in a process that ends when this script has been killed; otherwise it would continue to download for nobody.
# shellcheck disable=SC2016 # Python, not shell
PIP='
import os, runpy, sys, threading, time

def watch(setup):
    parent = os.getppid()
    try:
        while os.getppid() == parent:
            os.kill(setup, 0)
            time.sleep(0.5)
    finally:
        os._exit(1)

threading.Thread(target=watch, args=(int(sys.argv[1]),), daemon=True).start()
sys.argv = ["pip"] + sys.argv[2:]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
'
python=python3
pip() { run "$python" -c "$PIP" $$ "$@" </dev/null; }
pip_major() {
    local version
    version=$("$python" -m pip --version 2>/dev/null) || version=
    if [[ "$version" =~ ^pip\ ([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; fi
}

# A pip that knows the options used here. Neither way touches the system's Python, which may be managed by others.
prepare_pip() {
    if [ -z "$(pip_major)" ]; then
        say "python3 has no pip; making a virtual environment that has one, for this download only"
        run python3 -m venv "$WORK/venv" >&2 || return
        python=$PWD/$WORK/venv/bin/python
    fi
    local major
    major=$(pip_major)
    # Before 21, pip takes --platform only once.
    if [ "${major:-0}" -lt 21 ]; then
        say "pip $major is too old; downloading a newer one, for this download only"
        pip install --quiet --upgrade --target "$WORK/pip" pip || return
        export PYTHONPATH="$PWD/$WORK/pip${PYTHONPATH:+:$PYTHONPATH}"
    fi
}

explain_failure() { # exit status of pip; its messages are in the log
    complain "libtorch $TORCH could not be downloaded. pip's last messages:"
    tail -n 4 "$log" 2>/dev/null | cut -c 1-300 | sed 's/^/    /' >&2
    if grep -qs 'No space left\|Disk quota exceeded\|Errno 28' "$log"; then
        complain "The disk is full: free $gigabytes GB in this folder and run the same command again."
    elif [ "$1" = 137 ] || grep -qs MemoryError "$log"; then
        complain "There was not enough memory. End other programs and run the same command again."
    elif grep -qsiE 'connection|timed out|timeout|name resolution|resolve|proxy|unreachable|SSL|certificate|HTTP error|404|403' "$log"; then
        complain "The Python package index could not be reached. Check the network and run the same command again."
        complain "Behind a proxy, set HTTPS_PROXY; with a mirror of the index, set PIP_INDEX_URL."
    elif grep -qs 'No matching distribution' "$log"; then
        complain "The Python package index in use does not have these packages; with another one, set PIP_INDEX_URL."
    fi
    complain "Without a download: set LIBTORCH to the absolute path of a libtorch $TORCH folder, such as the folder"
    complain "\"torch\" of a Python that has torch $TORCH installed."
}

download_libtorch() {
    say "downloading libtorch $TORCH for $system on $machine into .torch ($download to download, $unpacked on disk; once) ..."
    # Not in this folder: on a full disk the reason could not be written.
    log=$(mktemp)
    mkdir -p "$WORK/tmp"
    # The wheels go to this file system too: its space has been checked, and the next set-up removes what a killed one left.
    # A user's own settings of pip that cannot go together with --target are switched off; proxy and index stay.
    export TMPDIR="$PWD/$WORK/tmp" PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_INPUT=1
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_RETRIES="${PIP_RETRIES:-2}"
    local options="--no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp" platform status=0
    for platform in $platforms; do options="$options --platform $platform"; done
    # pip's progress bar is for a person; its warnings and errors are kept for the explanation.
    [ -t 1 ] || options="$options --quiet"
    # shellcheck disable=SC2086 # words to be split
    { prepare_pip && pip install $options --target "$WORK/new" $packages; } 2>"$log" || status=$?
    if [ "$status" != 0 ]; then
        explain_failure "$status"
        exit 1
    fi
    if ! is_complete "$WORK/new/torch"; then
        complain "the downloaded torch $TORCH has no lib/$library, include/ or version.py: it cannot be built with"
        exit 1
    fi
    [ ! -e .torch ] || mv .torch "$WORK/old"
    mv "$WORK/new" .torch
    rm -rf "$WORK"
    say "libtorch $TORCH is in .torch"
}

# --- In order ---------------------------------------------------------------------------------------------------------

if needs_download || { [ -z "${LIBTORCH:-}" ] && [ -e "$WORK" ]; }; then
    lock
    # Left by a set-up that was killed; .torch.new is what earlier versions of this script called it.
    rm -rf "$WORK" .torch.new
fi
look_around
install_missing
if [ -n "${LIBTORCH:-}" ]; then
    check_own_libtorch
elif needs_download; then
    check_download
fi
report
tell_what_is_slower
tell_about_browser
rebuild_jpeg
if [ -n "${LIBTORCH:-}" ]; then
    say "using the libtorch of LIBTORCH=$LIBTORCH"
elif needs_download; then
    download_libtorch
fi
