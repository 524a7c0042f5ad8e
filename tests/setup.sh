#!/usr/bin/env bash
# Tests of tools/setup.sh, tools/nlprule-data.sh and ./demo with stub programs: no network, no cargo, nothing is installed.
# Every case has copies of the scripts in a folder of its own, and a PATH with stubs for all that they could find missing.
#
#   tests/setup.sh          all cases
#   tests/setup.sh demo     those whose name contains "demo"
#
# The last line is "N passed, N failed, N skipped". Needs bash, python3 and the usual Unix programs.
# shellcheck disable=SC2016 # the stubs are scripts in single quotes
set -uo pipefail
CDPATH='' cd "$(dirname "$0")/.." || exit
checkout=$PWD
only=${1:-}
T=$(cd "$(mktemp -d)" && pwd -P)
python=$(python3 -c 'import sys; print(sys.executable)') || exit 1
mounted=
finish() {
    [ -z "$mounted" ] || umount "$mounted"
    rm -rf "$T"
}
trap finish EXIT
passed=0 failed=0 skipped=0
case_name=

ok() { # what it shows, then a command that must succeed
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED  $case_name: $what  ($*)"
        sed 's/^/    | /' "$S/output" 2>/dev/null | tail -n 25
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "skipped $case_name: $*"
}
not() { ! "$@"; }
says() { grep -qE -- "$1" "$S/output"; }
logged() { grep -qE -- "$1" "$S/log"; }
times() { [ "$(grep -cE -- "$2" "$S/$1")" = "$3" ]; } # file, pattern, count
ended_with() { [ "$status" = "$1" ]; }
gone() { # the process has ended, or does within some seconds
    for _ in $(seq 40); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}
wait_for() { # a file with something in it
    for _ in $(seq 100); do
        [ ! -s "$1" ] || return 0
        sleep 0.05
    done
    return 1
}
is_whole() { [ -e "$S/.torch/torch/lib/libtorch_cpu.so" ] && [ -d "$S/.torch/torch/include" ] && [ ! -e "$S/.torch-tmp" ]; }

# --- The stubs ------------------------------------------------------------------------------------------------------------

mkdir "$T/base" "$T/python" "$T/python-without-pip" "$T/home"
for name in awk basename bash cat chmod cp cut date dirname env find grep head ln ls mkdir mktemp mv paste readlink rm \
    sed seq sleep sort tail touch tr wc; do
    path=$(command -v "$name") && ln -s "$path" "$T/base/$name"
done

stub() { # name, body
    printf '#!/usr/bin/env bash\n%s\n' "$2" >"$S/bin/$1"
    chmod +x "$S/bin/$1"
}

# A pip that makes a tiny torch, as FAKE_PIP tells.
mkdir "$T/python/pip"
echo 'version = "25.0"' >"$T/python/pip/__init__.py"
cat >"$T/python/pip/__main__.py" <<'PY'
import os, pathlib, sys, time
import pip

arguments = sys.argv[1:]
here, mode = pathlib.Path(os.environ["STUB_LOG"]).parent, os.environ.get("FAKE_PIP", "works")
version = pip.version if "PIP_VERSION" not in os.environ or hasattr(pip, "new") else os.environ["PIP_VERSION"]
if arguments == ["--version"]:
    print(f"pip {version} from {pip.__file__}")
    sys.exit()
with open(here / "log", "a") as log:
    settings = " ".join(f"{name}={os.environ.get(name)}" for name in ("PIP_USER", "PIP_BREAK_SYSTEM_PACKAGES", "PIP_RETRIES"))
    log.write(f"pip {version} {' '.join(arguments)} [{settings}]\n")
target = pathlib.Path(arguments[arguments.index("--target") + 1])
if arguments[-1] == "pip":
    own = pathlib.Path(pip.__file__).parent
    (target / "pip").mkdir(parents=True)
    (target / "pip" / "__main__.py").write_bytes((own / "__main__.py").read_bytes())
    (target / "pip" / "__init__.py").write_text('version = "25.1"\nnew = True\n')
    sys.exit()
if mode == "no network":
    sys.stderr.write("WARNING: Retrying after connection broken by 'NewConnectionError(Temporary failure in name resolution)'\n")
    sys.exit("ERROR: No matching distribution found for torch")
torch = target / "torch"
(torch / "lib").mkdir(parents=True)
(torch / "version.py").write_text("__version__ = '2.11.0+cu130'\n")
mac = any("macosx" in argument for argument in arguments)
if mode == "large":
    (torch / "lib" / "large").write_bytes(bytes(64 << 20))
(torch / "lib" / ("libtorch_cpu.dylib" if mac else "libtorch_cpu.so")).write_text("library")
if mode == "hangs":
    (here / "pip.pid").write_text(str(os.getpid()))
    time.sleep(60)
if mode == "slow":
    (here / "pip.pid").write_text(str(os.getpid()))
    time.sleep(1)
(torch / "include").mkdir()
PY
# No pip, but a venv module whose environments have one.
mkdir "$T/python-without-pip/pip" "$T/python-without-pip/venv"
touch "$T/python-without-pip/pip/__init__.py" "$T/python-without-pip/venv/__init__.py" "$T/python-without-pip/ensurepip.py"
cat >"$T/python-without-pip/venv/__main__.py" <<PY
import os, pathlib, sys
program = pathlib.Path(sys.argv[1]) / "bin" / "python"
program.parent.mkdir(parents=True)
program.write_text("#!/bin/sh\nPYTHONPATH='$T/python' exec '$python' \"\$@\"\n")
program.chmod(0o755)
PY
# Neither.
mkdir -p "$T/python-bare/pip"
touch "$T/python-bare/pip/__init__.py"
echo 'raise ImportError("removed by the distribution")' >"$T/python-bare/ensurepip.py"

# What a machine has on which nothing is missing; cases remove from it.
new_case() {
    S=$T/$1
    mkdir -p "$S/bin" "$S/tools"
    cp "$checkout/demo" "$S/"
    cp "$checkout/tools/setup.sh" "$S/tools/"
    : >"$S/log"
    stub cc : && stub c++ : && stub nasm :
    stub rustc 'echo "rustc 1.95.0 (0123abcd 2026-04-01)"'
    stub cargo 'echo "cargo $*" >>"$STUB_LOG"'
    stub python3 "exec '$python' \"\$@\""
    # As apt-get does it: the program is there afterwards. Its name as a package of "nasm" or "g++".
    stub apt-get '
echo "apt-get $*" >>"$STUB_LOG"
case "$*" in *" install "* | "install "*)
    [ -z "${APT_FAILS:-}" ] || { echo "E: Unable to locate package"; exit 100; }
    for word in "$@"; do case "$word" in
        nasm) printf "#!/bin/sh\n" >"$STUB_BIN/nasm"; chmod +x "$STUB_BIN/nasm" ;;
        g++) printf "#!/bin/sh\n" >"$STUB_BIN/c++"; chmod +x "$STUB_BIN/c++" ;;
    esac; done ;;
esac'
    stub sudo 'echo "sudo $*" >>"$STUB_LOG"; [ "$1" != -n ] || shift; exec "$@"'
    stub uname 'case "$1" in -s) echo "${SYSTEM:-Linux}" ;; -m) echo "${MACHINE:-x86_64}" ;; esac'
    stub id 'echo "${USER_ID:-1000}"'
    stub df 'echo Filesystem; echo "/dev/stub 1 1 ${FREE_KB:-99999999} 1% /"'
    stub getconf 'echo glibc 2.36'
    if path=$(command -v flock); then ln -s "$path" "$S/bin/flock"; fi
}

# Becomes, in the case's folder and with nothing of this machine, a program: variables, then the command.
become() {
    cd "$S" && exec env -i PATH="$S/bin:$T/base" HOME="$T/home" TMPDIR="$T" LC_ALL=C.UTF-8 PYTHONPATH="${PYTHON_PATH:-$T/python}" \
        PYTHONDONTWRITEBYTECODE=1 STUB_LOG="$S/log" STUB_BIN="$S/bin" "$@"
}
setup() { # variables and options
    local variables=() options=() word
    for word in "$@"; do case "$word" in -*) options+=("$word") ;; *) variables+=("$word") ;; esac; done
    status=0
    (become ${variables[@]+"${variables[@]}"} tools/setup.sh ${options[@]+"${options[@]}"}) >"$S/output" 2>&1 || status=$?
}
# The same, as a job with a process group of its own.
setup_job() {
    set -m
    become "$@" tools/setup.sh >"$S/output" 2>&1 &
    job=$!
    set +m
}
end_of_job() {
    status=0
    wait "$job" 2>/dev/null || status=$?
}

# --- tools/setup.sh --------------------------------------------------------------------------------------------------------

setup_first_and_second_run() {
    new_case "$case_name"
    setup
    ok "the first run succeeds" ended_with 0
    ok "libtorch is there" is_whole
    ok "pip is called once" times log '^pip ' 1
    ok "for this platform" logged 'pip .*--platform manylinux_2_28_x86_64 .*torch==2.11.0 nvidia-cuda-runtime==[0-9.]+ nvidia-cuda-cupti'
    ok "settings that do not go together with --target are off" logged 'PIP_USER=0 PIP_BREAK_SYSTEM_PACKAGES=1 PIP_RETRIES=2'
    local best=9999 took
    for _ in 1 2 3 4 5; do
        took=$( { TIMEFORMAT=%R; time setup; } 2>&1 | tr -d .)
        [ "$((10#$took))" -ge "$best" ] || best=$((10#$took))
    done
    setup
    ok "the second run succeeds" ended_with 0
    ok "the second run says nothing" not says .
    ok "the second run does not call pip" times log '^pip ' 1
    ok "the second run takes less than 0.2 s (it took $best ms)" test "$best" -lt 200
    ok "there is nothing left to tidy" test -z "$(cd "$S" && find . -maxdepth 1 -name '.*' ! -name . ! -name .torch)"
}

setup_options() {
    new_case "$case_name"
    setup --help
    ok "--help succeeds" ended_with 0
    ok "--help names the options" says '^  tools/setup.sh --install '
    ok "--help shows no code" not says 'set -euo|^#'
    setup --instal
    ok "an unknown option is wrong use" ended_with 2
    ok "it is named" says 'unknown option --instal;'
}

setup_without_libtorch() {
    new_case "$case_name"
    setup --no-libtorch
    ok "it succeeds" ended_with 0
    ok "nothing is downloaded" not logged '^pip '
    ok "there is no libtorch" test ! -e "$S/.torch"
}

setup_without_nasm() {
    new_case "$case_name"
    rm "$S/bin/nasm"
    setup
    ok "it succeeds" ended_with 0
    ok "libtorch is there" is_whole
    ok "it says what is slower" says 'nasm is missing.*SIMD'
    ok "it says how to install nasm" says 'sudo apt-get update && sudo apt-get install -y --no-install-recommends nasm$'
    ok "it says how the library is rebuilt" says 'cargo clean -p mozjpeg-sys --release'
    ok "nothing is installed" not logged apt-get
    # Built without; nasm comes later.
    mkdir -p "$S/target/release/build/mozjpeg-sys-0123"
    echo "cargo:warning=NASM not installed. Mozjpeg's SIMD won't be enabled: No such file" >"$S/target/release/build/mozjpeg-sys-0123/output"
    setup
    ok "nothing is rebuilt without nasm" not logged 'cargo clean'
    stub nasm :
    setup
    ok "with nasm the library is rebuilt" logged 'cargo clean .*--release -p mozjpeg-sys'
    ok "and that is said" says 'nasm is installed now'
    rm -r "$S/target"
    setup
    ok "only once" times log 'cargo clean' 1
    rm "$S/bin/nasm"
    setup MACHINE=aarch64
    ok "other processors do not need nasm" not says nasm
}

setup_much_missing() {
    new_case "$case_name"
    rm "$S/bin/"{c++,cargo,rustc,nasm}
    PYTHON_PATH=$T/python-bare setup
    ok "it fails" ended_with 1
    ok "one line names all" says 'missing: a C\+\+ compiler \(c\+\+\), pip for python3, Rust 1.94 or newer .*, curl .*; optional: nasm$'
    ok "one command installs the packages" says '^    sudo apt-get update && sudo apt-get install -y --no-install-recommends g\+\+ python3-pip curl nasm$'
    ok "one command installs Rust" says '^    curl .*https://sh.rustup.rs \| sh'
    ok "it says what --install does" says 'with --install'
    ok "each package is named once" times output 'apt-get install' 1
    ok "nothing has been downloaded" not logged '^pip '
    ok "nothing has been installed" not logged apt-get
    setup LIBTORCH=relative FREE_KB=1000
    ok "a wrong LIBTORCH is told in the same message" says 'LIBTORCH=relative is a relative path'
    ok "together with the programs" says 'missing: a C\+\+ compiler'
    setup FREE_KB=1000
    ok "a full disk too" says 'needs 3 GB of free disk space.* has 0 GB'
    mv "$S/bin/apt-get" "$S/bin/dnf"
    stub curl :
    setup
    ok "dnf is used where there is no apt-get" says '^    sudo dnf install -y gcc-c\+\+ nasm$'
    rm "$S/bin/dnf"
    setup
    ok "without both the names are given" says 'package manager: a C\+\+ compiler'
    rm "$S/bin/"{cc,python3}
    setup SYSTEM=Darwin MACHINE=arm64
    ok "macOS has a command of its own" says '^    xcode-select --install$'
    ok "python3 is missing too" says 'a C compiler \(cc\), a C\+\+ compiler \(c\+\+\), python3, pip'
}

setup_old_rust() {
    new_case "$case_name"
    stub rustc 'echo "rustc 1.85.1 (4eb161250 2025-03-15)"'
    setup
    ok "it fails" ended_with 1
    ok "it says which version is there" says 'Rust 1.94 or newer \(this is rustc 1.85.1 .*rustup.rs'
    stub rustup :
    setup
    ok "with rustup it is an update" says '^    rustup update stable && rustup default stable$'
    stub rustc 'echo "rustc 1.94.0-nightly (0123abcd 2026-01-01)"'
    stub cargo '[ "$1" != clippy ]'
    setup
    ok "1.94 is enough for a build" ended_with 0
    setup --tests
    ok "./check needs clippy" ended_with 1
    ok "its command is given" says '^    rustup component add rustfmt clippy$'
    rm "$S/bin/"{cargo,rustc}
    mkdir -p "$T/home/.cargo/bin"
    printf '#!/bin/sh\necho "rustc 1.94.0"\n' >"$T/home/.cargo/bin/rustc"
    cp "$T/home/.cargo/bin/rustc" "$T/home/.cargo/bin/cargo"
    chmod +x "$T/home/.cargo/bin/"*
    setup
    ok "a Rust that is installed but not in PATH is found" ended_with 0
    rm -r "$T/home/.cargo"
}

setup_installs() {
    new_case "$case_name"
    rm "$S/bin/nasm"
    setup USER_ID=0 container=docker
    ok "root in a container succeeds" ended_with 0
    ok "root in a container installs" logged '^apt-get install .* nasm$'
    ok "without sudo" not logged sudo
    ok "it says so" says 'installing nasm with apt-get \(root in a container'
    ok "nothing is said to be slower" not says SIMD
    ok "apt-get is called twice" times log '^apt-get' 2
    rm "$S/bin/nasm" && : >"$S/log"
    setup CI=true
    ok "CI installs with sudo that asks nothing" logged '^sudo -n env .*apt-get install .* nasm$'
    rm "$S/bin/nasm" && : >"$S/log"
    setup CI=true --no-install
    ok "--no-install is obeyed" not logged apt-get
    ok "the build goes without nasm" ended_with 0
    setup --install
    ok "--install installs with sudo" logged '^sudo env .*apt-get install .* nasm$'
    rm "$S/bin/nasm" "$S/bin/c++" && : >"$S/log"
    setup --install APT_FAILS=1
    ok "a failed installation of a compiler is an error" ended_with 1
    ok "apt-get's message is shown" says '^    E: Unable to locate package'
    ok "what is missing is told again, once" times output '^setup: missing: a C\+\+ compiler' 1
    stub c++ :
    setup --install APT_FAILS=1
    ok "a failed installation of nasm is none" ended_with 0
    ok "it says what is slower" says SIMD
    rm "$S/bin/"{c++,sudo}
    setup --install
    ok "without sudo and root it cannot" says 'cannot install system packages: this user is not root'
    ok "and says what is missing" says 'missing: a C\+\+ compiler'
    mv "$S/bin/apt-get" "$S/bin/dnf"
    setup --install USER_ID=0
    ok "dnf installs" logged '^apt-get install -y -q gcc-c\+\+$'
    : >"$S/log"
    stub apt-get 'echo "apt-get $*" >>"$STUB_LOG"' && stub c++ :
    setup --tests USER_ID=0 container=docker
    ok "a container does not get a browser unasked" not logged chromium
    ok "the tests without one are mentioned" says 'tests that open a browser are skipped'
    setup --tests CI=true USER_ID=0
    ok "CI gets a browser" logged '^apt-get install .* chromium$'
    ok "and its driver" logged '^apt-get install .* chromium-driver$'
}

setup_interrupted() {
    local signal
    new_case "$case_name"
    for signal in INT TERM HUP KILL; do
        rm -f "$S/pip.pid"
        setup_job FAKE_PIP=hangs
        ok "$signal: the download has begun" wait_for "$S/pip.pid"
        kill -s "$signal" "$job"
        end_of_job
        ok "$signal: it ends by the signal" test "$status" -gt 128
        ok "$signal: pip ends" gone "$(cat "$S/pip.pid")"
        ok "$signal: there is no half-filled .torch" test ! -e "$S/.torch"
        [ "$signal" = KILL ] || ok "$signal: nothing is left" test ! -e "$S/.torch-tmp"
    done
    setup_job FAKE_PIP=hangs
    rm -f "$S/pip.pid" && wait_for "$S/pip.pid"
    kill -s INT -- "-$job"
    end_of_job
    ok "Ctrl-C: pip ends" gone "$(cat "$S/pip.pid")"
    ok "Ctrl-C: nothing is left" test ! -e "$S/.torch" -a ! -e "$S/.torch-tmp"
    mkdir -p "$S/.torch-tmp/new/torch/lib" "$S/.torch.new"
    setup
    ok "the next run succeeds" ended_with 0
    ok "the next run is whole" is_whole
    ok "what earlier versions left is gone too" test ! -e "$S/.torch.new"
    mkdir "$S/.torch-tmp"
    setup
    ok "what a killed set-up left behind a finished .torch goes too" is_whole
}

setup_two_at_once() {
    local first way
    for way in flock python; do
        new_case "$case_name-$way"
        [ "$way" = flock ] || rm -f "$S/bin/flock"
        if [ "$way" = flock ] && [ ! -e "$S/bin/flock" ]; then skip "no flock program here"; continue; fi
        setup_job FAKE_PIP=slow
        first=$job
        wait_for "$S/pip.pid"
        mv "$S/output" "$S/output-first"
        setup
        ok "$way: the second succeeds" ended_with 0
        ok "$way: the second says that it waits" says 'another set-up is running in this folder; waiting'
        ok "$way: there is one download" times log '^pip ' 1
        ok "$way: libtorch is there" is_whole
        job=$first
        end_of_job
        ok "$way: the first succeeds" ended_with 0
    done
    # The first is killed while the second waits.
    new_case "$case_name-killed"
    setup_job FAKE_PIP=hangs
    first=$job
    wait_for "$S/pip.pid"
    mv "$S/output" "$S/output-first"
    setup_job
    sleep 0.3
    kill -s KILL "$first"
    end_of_job
    wait "$first" 2>/dev/null
    ok "the second takes over" ended_with 0
    ok "libtorch is there" is_whole
}

setup_no_network() {
    new_case "$case_name"
    setup FAKE_PIP="no network"
    ok "it fails" ended_with 1
    ok "it says what failed" says 'libtorch 2.11.0 could not be downloaded'
    ok "it shows pip's message" says '^    .*name resolution'
    ok "it says why" says 'The Python package index could not be reached'
    ok "it says what to do" says 'set HTTPS_PROXY; with a mirror of the index, set PIP_INDEX_URL'
    ok "it says how to do without" says 'set LIBTORCH to the absolute path'
    ok "nothing is left" test ! -e "$S/.torch" -a ! -e "$S/.torch-tmp"
    if "$python" -m pip --version >/dev/null 2>&1; then
        local began=$SECONDS
        # The real pip, at an address where nobody answers.
        PYTHON_PATH=$T/base setup PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_NO_CACHE_DIR=1
        ok "real pip: it fails" ended_with 1
        ok "real pip: it says why" says 'The Python package index could not be reached'
        ok "real pip: within 20 s" test $((SECONDS - began)) -le 20
    else
        skip "python3 has no pip here"
    fi
}

setup_full_disk() {
    new_case "$case_name"
    setup FREE_KB=1900000
    ok "it fails" ended_with 1
    ok "it says so before the download" says 'needs 3 GB of free disk space.* this folder has 1 GB'
    ok "pip is not called" not logged '^pip '
    mkdir "$T/full"
    if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=8m tmpfs "$T/full" 2>/dev/null; then
        mounted=$T/full
        new_case full
        setup FAKE_PIP=large
        ok "it fails when the disk fills up" ended_with 1
        ok "it says that the disk is full" says 'The disk is full: free 3 GB'
        ok "nothing is left" test ! -e "$S/.torch" -a ! -e "$S/.torch-tmp"
        umount "$mounted" && mounted=
    else
        skip "a full disk needs root and tmpfs"
    fi
}

setup_pips() {
    new_case "$case_name"
    setup PIP_VERSION=9.0.3 PIP_USER=1
    ok "an old pip: it succeeds" ended_with 0
    ok "an old pip gets a new one" logged '^pip 9.0.3 install --quiet --upgrade --target .torch-tmp/pip pip '
    ok "which downloads libtorch" logged '^pip 25.1 install .*torch==.* \[PIP_USER=0'
    ok "libtorch is there" is_whole
    rm -r "$S/.torch"
    PYTHON_PATH=$T/python-without-pip setup
    ok "no pip, but venv: it succeeds" ended_with 0
    ok "it says so" says 'python3 has no pip; making a virtual environment'
    ok "libtorch is there" is_whole
    rm -r "$S/.torch"
    PYTHON_PATH=$T/python-bare setup
    ok "neither: it is missing" says 'missing: pip for python3$'
    ok "neither: its package is named" says 'install .* python3-pip$'
}

setup_platforms() {
    new_case "$case_name"
    setup MACHINE=aarch64
    ok "Linux on aarch64: it succeeds" ended_with 0
    ok "Linux on aarch64: its files" logged '--platform manylinux_2_28_aarch64 .*torch==2.11.0'
    ok "Linux on aarch64: no others" not logged x86_64
    rm -r "$S/.torch"
    setup SYSTEM=Darwin MACHINE=arm64
    ok "macOS on arm64: it succeeds" ended_with 0
    ok "macOS on arm64: its files" logged '--platform macosx_11_0_arm64 .*torch==2.11.0 \['
    ok "macOS on arm64: its library" test -e "$S/.torch/torch/lib/libtorch_cpu.dylib"
    ok "macOS on arm64: the second run does nothing" setup SYSTEM=Darwin MACHINE=arm64
    ok "macOS on arm64: one download" times log '^pip .*macosx' 1
    rm -r "$S/.torch"
    setup SYSTEM=Darwin
    ok "macOS on x86_64 has none" says 'no libtorch 2.11.0 for Darwin on x86_64.*set LIBTORCH'
    stub getconf 'echo glibc 2.27'
    setup
    ok "an old glibc is told before the download" says 'glibc 2.28 or newer.* glibc 2.27'
    stub getconf 'exit 1'
    setup
    ok "and another C library" says 'another C library'
}

setup_own_libtorch() {
    new_case "$case_name"
    mkdir -p "$S/own/lib" "$S/own/include"
    setup LIBTORCH="$S/own"
    ok "a folder without the library is refused" says 'not a libtorch folder: it has no lib/libtorch_cpu.so'
    touch "$S/own/lib/libtorch_cpu.so"
    setup LIBTORCH="$S/own"
    ok "a folder without a version is refused" says 'neither version.py nor build-version'
    echo 2.10.0+cpu >"$S/own/build-version"
    setup LIBTORCH="$S/own"
    ok "another version is refused" says 'is libtorch 2.10.0\+cpu, and the build needs 2.11.x'
    ok "with status 1" ended_with 1
    setup LIBTORCH="$S/nowhere"
    ok "a missing folder is refused" says 'nowhere does not exist'
    echo "__version__ = '2.11.1'" >"$S/own/version.py"
    setup LIBTORCH="$S/own" FREE_KB=1
    ok "the right version is used" ended_with 0
    ok "and named" says "using the libtorch of LIBTORCH=$S/own"
    ok "nothing is downloaded" not logged '^pip '
    setup LIBTORCH=
    ok "an empty LIBTORCH is none" is_whole
    # Left from an earlier version of this project.
    echo "__version__ = '2.10.0'" >"$S/.torch/torch/version.py"
    touch "$S/.torch/old"
    setup
    ok "another version in .torch is replaced" is_whole
    ok "as a whole" test ! -e "$S/.torch/old"
    mv "$S/.torch" "$S/site-packages" && ln -s site-packages "$S/.torch"
    setup
    ok "a link to a whole one is used" ended_with 0
    rm "$S/site-packages/torch/version.py"
    setup
    ok "a link to something else is left alone" test -L "$S/.torch"
    ok "and told" says '.torch is a link to site-packages, which holds no torch 2.11.0'
}

# --- tools/nlprule-data.sh ------------------------------------------------------------------------------------------------------

nlprule_data() {
    new_case "$case_name"
    cp "$checkout/tools/nlprule-data.sh" "$S/tools/"
    stub rustc 'echo "host: x86_64-unknown-linux-gnu"'
    stub cargo 'echo "error: failed to download (network unreachable)" >&2; exit 101'
    run_nlprule() {
        status=0
        (become tools/nlprule-data.sh) >"$S/output" 2>&1 || status=$?
    }
    run_nlprule
    ok "without a network it fails" ended_with 1
    ok "cargo's message is shown" says 'network unreachable'
    ok "it says what to do" says 'could not download cargo-spellcheck .*Check the network'
    ok "nothing is left" test ! -e "$S/.nlprule"
    mkdir -p "$S/package/nlprule-data/0.6.4/en"
    "$python" -c 'import lzma, sys; lzma.open(sys.argv[1], "wb").write(b"something else")' "$S/package/nlprule-data/0.6.4/en/en_tokenizer.bin.xz"
    echo licence >"$S/package/LICENSE-LGPL"
    stub cargo 'if [ "$1" = metadata ]; then echo "{\"packages\": [{\"name\": \"cargo-spellcheck\", \"manifest_path\": \"$FOLDER/package/Cargo.toml\"}]}"; fi'
    sed -i.old "s|\$FOLDER|$S|" "$S/bin/cargo"
    run_nlprule
    ok "other data are an error" ended_with 1
    ok "both hashes are told" says 'has SHA-256 [0-9a-f]{64} after unpacking, expected e2b51e50'
    ok "and not written" test ! -e "$S/.nlprule/en_tokenizer.bin"
    "$python" -c 'import hashlib; print(hashlib.sha256(b"something else").hexdigest())' >"$S/hash"
    sed -i.old "s/^SHA256=.*/SHA256=$(cat "$S/hash")/" "$S/tools/nlprule-data.sh"
    run_nlprule
    ok "the right data are written" test -s "$S/.nlprule/en_tokenizer.bin" -a -s "$S/.nlprule/NOTICE" -a -s "$S/.nlprule/LICENSE-LGPL"
    stub cargo 'exit 101'
    run_nlprule
    ok "the second run succeeds without cargo" ended_with 0
    ok "and says nothing" not says .
}

# --- ./demo ------------------------------------------------------------------------------------------------------------------

new_demo() {
    new_case "$1"
    mkdir -p "$S/target/release" "$S/.torch"
    printf '#!/usr/bin/env bash\necho "setup $*" >>"$STUB_LOG"\nif [ "${BLOCK:-}" = setup ]; then echo $$ >"$STUB_PIDS/setup"; exec sleep 60; fi\n' >"$S/tools/setup.sh"
    stub cargo 'echo "cargo $*" >>"$STUB_LOG"
if [ "${BLOCK:-}" = cargo ]; then sleep 60 & echo $! >"$STUB_PIDS/rustc"; echo $$ >"$STUB_PIDS/cargo"; wait; fi'
    cat >"$S/target/release/tools" <<'STUB'
#!/usr/bin/env bash
echo "tools $*" >>"$STUB_LOG"
[ "$1" = scenes ] || exit 0
while [ $# -gt 0 ]; do
    case "$1" in --out) out=$2 ;; --url-prefix) url=$2 ;; esac
    shift
done
mkdir -p "$out" && printf 'sand\nbutterfly\n' >"$out/classes.txt" && echo "${url:-}" >"$out/captions.parquet"
STUB
    # Downloads one file, to show that the server works.
    cat >"$S/target/release/ingest" <<'STUB'
#!/usr/bin/env bash
echo "ingest $*" >>"$STUB_LOG"
[ "$1" = download ] || exit 0
url=$(cat "$2") && port=${url#http://127.0.0.1:} && port=${port%%/*}
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /scenes/classes.txt HTTP/1.0\r\n\r\n' >&3
grep -q '^butterfly' <&3 && echo "downloaded" >>"$STUB_LOG"
if [ "${BLOCK:-}" = download ]; then
    sleep 60 &
    echo $! >"$STUB_PIDS/child"
    echo $$ >"$STUB_PIDS/ingest"
    wait
fi
STUB
    cat >"$S/target/release/trainer" <<'STUB'
#!/usr/bin/env bash
echo "trainer $*" >>"$STUB_LOG"
case "$1" in
    train) echo '{"progress": 1}'; echo "{\"images_per_second\": 1234}" ;;
    eval) case "$*" in *simzss*) miou=0.542 ;; *) miou=0.221 ;; esac; echo "{\"miou\": $miou, \"pixel_accuracy\": 0.7, \"chance\": 0.023}" ;;
    pretrain) [ "${BLOCK:-}" != pretrain ] || { echo $$ >"$STUB_PIDS/pretrain"; exec sleep 60; } ;;
esac
STUB
    chmod +x "$S/tools/setup.sh" "$S/target/release/"*
    mkdir "$S/pids"
}
demo() { # variables and options
    local variables=() options=() word
    for word in "$@"; do case "$word" in [A-Z]*=*) variables+=("$word") ;; *) options+=("$word") ;; esac; done
    status=0
    (become STUB_PIDS="$S/pids" ${variables[@]+"${variables[@]}"} ./demo ${options[@]+"${options[@]}"}) >"$S/output" 2>&1 || status=$?
}
demo_job() {
    rm -f "$S/pids/"*
    set -m
    become STUB_PIDS="$S/pids" "$@" ./demo >"$S/output" 2>&1 &
    job=$!
    set +m
}
port_of() { sed -nE 's|^serving http://127.0.0.1:([0-9]+)/|\1|p' "$S/demo-out/server.log"; }
serves() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
silent() {
    for _ in $(seq 40); do
        serves "$1" || return 0
        sleep 0.1
    done
    return 1
}

demo_whole() {
    new_demo "$case_name"
    demo
    ok "it succeeds" ended_with 0
    ok "the scenes were served" logged '^downloaded$'
    ok "the build is one command" times log '^cargo ' 1
    ok "with the lock file" logged '^cargo build --release --locked$'
    ok "the table has LiT" says '^lit +22\.1 +70\.0 +1234$'
    ok "the table has SimZSS" says '^simzss +54\.2 +70\.0 +1234$'
    ok "it says which images to open" says '^  demo-out/similarity.png +where'
    ok "it says how long the parts took" says '^Time: set-up [0-9]+ s, build [0-9]+ s, demo [0-9]+ s$'
    ok "no server is left" silent "$(port_of)"
    ok "nothing else is said to have been killed" not says 'Terminated|Killed|line [0-9]+:'
    ok "one clock, that never goes back" sort -nc <(grep -oE '\[ *[0-9]+ s\]' "$S/output" | tr -d '[]s ')
    demo --seeds 2 --install
    ok "again, with two seeds" ended_with 0
    ok "the spread is told" says '^simzss +54\.2 ± 0\.0 '
    ok "--install goes to the set-up" logged '^setup --install$'
    ok "each seed is trained" logged 'trainer train .*seed=1 '
    demo --frontier
    ok "with the model beyond the paper" ended_with 0
    ok "it has its preset" logged 'trainer train .*presets/demo.toml --config trainer/presets/frontier.toml '
    ok "the table has it" says '^frontier +22\.1 +70\.0 +1234$'
    demo --seeds=0
    ok "no seeds is wrong use" ended_with 2
    demo --seeds
    ok "a missing number is wrong use" ended_with 2
    demo --sedes 3
    ok "an unknown option is wrong use" ended_with 2
    demo --help
    ok "--help" says '^  ./demo --seeds 3 '
    ok "--help shows no code" not says 'set -euo|^#'
}

demo_keeps_what_is_not_its_own() {
    new_demo "$case_name"
    mkdir "$S/demo-out" && touch "$S/demo-out/thesis.tex"
    demo
    ok "it refuses" ended_with 1
    ok "it says why" says 'demo-out was not made by this script'
    ok "the file is still there" test -e "$S/demo-out/thesis.tex"
    ok "it says so before the build" not logged cargo
    rm -r "$S/demo-out"
    stub cargo 'exit 101'
    demo
    ok "a failed build ends it" ended_with 1
    ok "it says what to do" says 'the build failed.*run ./demo again'
}

demo_killed() {
    local signal point port
    new_demo "$case_name"
    for signal in INT TERM HUP; do
        demo_job BLOCK=download
        ok "$signal: the download has begun" wait_for "$S/pids/ingest"
        port=$(port_of)
        ok "$signal: the server runs" serves "$port"
        kill -s "$signal" "$job"
        end_of_job
        ok "$signal: it ends by the signal" test "$status" -gt 128
        ok "$signal: the server ends" silent "$port"
        ok "$signal: the program ends" gone "$(cat "$S/pids/ingest")"
        ok "$signal: its child ends" gone "$(cat "$S/pids/child")"
    done
    for point in setup cargo pretrain; do
        demo_job BLOCK=$point
        ok "$point: it has begun" wait_for "$S/pids/$point"
        kill -s TERM "$job"
        end_of_job
        ok "$point: it ends" gone "$(cat "$S/pids/$point")"
    done
    demo_job BLOCK=cargo
    wait_for "$S/pids/cargo"
    kill -s INT -- "-$job"
    end_of_job
    ok "Ctrl-C: cargo ends" gone "$(cat "$S/pids/cargo")"
    ok "Ctrl-C: cargo's child ends" gone "$(cat "$S/pids/rustc")"
    demo_job BLOCK=download
    wait_for "$S/pids/ingest"
    port=$(port_of)
    kill -s KILL "$job"
    end_of_job
    ok "KILL: the server ends by itself" silent "$port"
    demo
    ok "KILL: while a program of that demo still runs, another one is refused" says 'another ./demo is running'
    kill "$(cat "$S/pids/child")" "$(cat "$S/pids/ingest")"
    gone "$(cat "$S/pids/ingest")"
    demo
    ok "the next demo succeeds" ended_with 0
}

demo_terminal_closed() {
    new_demo "$case_name"
    local port
    (cd "$S" && exec env -i PATH="$S/bin:$T/base" HOME="$T/home" STUB_LOG="$S/log" STUB_BIN="$S/bin" STUB_PIDS="$S/pids" BLOCK=download \
        "$python" - "$S/pids/ingest" <<'PY'
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv("./demo", ["./demo"])
deadline = time.time() + 10
os.set_blocking(terminal, False)
while not os.path.exists(sys.argv[1]) and time.time() < deadline:
    time.sleep(0.05)
    try:
        os.read(terminal, 65536)
    except BlockingIOError:
        pass
os.close(terminal)
os.waitpid(pid, 0)
PY
    ) >"$S/output" 2>&1
    port=$(port_of)
    ok "the server had run" test -n "$port"
    ok "the server ends" silent "$port"
    ok "the program ends" gone "$(cat "$S/pids/ingest")"
    ok "its child ends" gone "$(cat "$S/pids/child")"
}

demo_two_at_once() {
    local way
    for way in flock python; do
        new_demo "$case_name-$way"
        [ "$way" = flock ] || rm -f "$S/bin/flock"
        if [ "$way" = flock ] && [ ! -e "$S/bin/flock" ]; then skip "no flock program here"; continue; fi
        demo_job BLOCK=download
        wait_for "$S/pids/ingest"
        mv "$S/output" "$S/output-first"
        demo
        ok "$way: the second is refused" ended_with 1
        ok "$way: with one line" says 'another ./demo is running in this folder'
        ok "$way: and only that" times output . 1
        ok "$way: the first still runs" serves "$(port_of)"
        kill -s TERM "$job"
        end_of_job
    done
}

for case_name in setup_first_and_second_run setup_options setup_without_libtorch setup_without_nasm setup_much_missing setup_old_rust setup_installs \
    setup_interrupted setup_two_at_once setup_no_network setup_full_disk setup_pips setup_platforms setup_own_libtorch \
    nlprule_data demo_whole demo_keeps_what_is_not_its_own demo_killed demo_terminal_closed demo_two_at_once; do
    case "$case_name" in *"$only"*) "$case_name" ;; esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
