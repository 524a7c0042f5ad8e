#!/usr/bin/env bash
# Makes release archives of ingest, tools and tools-sql for Linux, or the wheels simzss-data and simzss-ingest, which run wherever
# glibc 2.28 or newer is (RHEL 8, Debian 10, Ubuntu 18.10 and later). See docs/release.md.
#
#   tools/release.sh                       x86_64
#   tools/release.sh x86_64 aarch64        both
#   tools/release.sh --out DIR             somewhere else than target/release-archives
#   tools/release.sh --only ingest,tools   without the other programs, to try it sooner
#   tools/release.sh --wheels              the wheels instead of the archives
#
# Output: DIR/simzss-VERSION/ with simzss-VERSION-ARCH-unknown-linux-gnu.tar.gz and SHA256SUMS, or DIR/simzss-VERSION-wheels/ with
# the wheels, whole or not at all.
# Needs Linux, cargo, python3 with venv, GNU tar, nasm for x86_64 and, once, the Python index.
set -euo pipefail
cd "$(dirname "$0")/.."

GLIBC=2.28
# The C compiler and linker that can link against an old glibc, and cargo's command for them.
ZIG=ziglang==0.15.2
ZIGBUILD=cargo-zigbuild==0.24.0
# What builds wheels, and what looks at them.
WHEELS="maturin==1.16.0 twine==7.0.0 abi3audit==0.0.26 auditwheel==6.8.2"
programs=(ingest tools tools-sql)
wheels=''

fail() {
    echo "release: $*" >&2
    exit 1
}

work=${CARGO_TARGET_DIR:-target}/release-build
out=${CARGO_TARGET_DIR:-target}/release-archives
architectures=()
while [ $# -gt 0 ]; do
    case "$1" in
        x86_64 | aarch64) architectures+=("$1"); shift ;;
        --out) [ $# -ge 2 ] || fail "--out takes a folder"; out=$2; shift 2 ;;
        --only) [ $# -ge 2 ] || fail "--only takes names of programs"; IFS=, read -ra programs <<<"$2"; shift 2 ;;
        --wheels) wheels=1; shift ;;
        -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "release: unknown argument $1; see tools/release.sh --help" >&2; exit 2 ;;
    esac
done
[ ${#architectures[@]} -gt 0 ] || architectures=(x86_64)

# Everything that is missing, in one message.
missing=()
[ "$(uname -s)" = Linux ] || fail "archives are made on Linux only"
command -v cargo >/dev/null || missing+=("cargo: see https://rustup.rs")
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("python3 with venv: apt-get install python3-venv")
tar --version 2>/dev/null | grep -q 'GNU tar' || missing+=("GNU tar: apt-get install tar")
for architecture in "${architectures[@]}"; do
    if [ "$architecture" = x86_64 ]; then
        command -v nasm >/dev/null || missing+=("nasm, without which JPEG is several times slower: apt-get install nasm")
    fi
    if command -v rustc >/dev/null; then
        [ -d "$(rustc --print sysroot)/lib/rustlib/$architecture-unknown-linux-gnu/lib" ] ||
            missing+=("Rust's library for $architecture: rustup target add $architecture-unknown-linux-gnu")
    fi
done
if [ ${#missing[@]} -gt 0 ]; then
    printf 'release: missing %s\n' "${missing[@]}" >&2
    exit 1
fi

# The completions and manual pages are written by the programs themselves, so those of this machine come first.
host=$(uname -m)
case "$wheels ${architectures[*]} " in
    1* | *" $host "*) ;;
    *) fail "this machine is $host and cannot run programs for ${architectures[*]}, which write their manual pages; add $host" ;;
esac

mkdir -p "$work" "$out"
work=$(cd "$work" && pwd)
out=$(cd "$out" && pwd)

# Two releases at once would build in the same folder.
exec 9>"$work/lock"
flock --nonblock 9 || fail "another release is being made in $work"

environment=$work/venv
wanted="$ZIG $ZIGBUILD $WHEELS"
if [ "$(cat "$environment/made-for" 2>/dev/null)" != "$wanted" ]; then
    echo "release: installing $wanted"
    rm -rf "$environment"
    python3 -m venv "$environment"
    # shellcheck disable=SC2086 # several packages
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: $wanted
    echo "$wanted" >"$environment/made-for"
fi

# Which package each program belongs to, and their version.
described=$(cargo metadata --locked --no-deps --format-version 1 | "$environment/bin/python" -c '
import json, sys
metadata = json.load(sys.stdin)
owner = {target["name"]: package for package in metadata["packages"] for target in package["targets"]
         if "bin" in target["kind"]}
missing = [program for program in sys.argv[1:] if program not in owner]
if missing:
    sys.exit(f"release: no package of this workspace has the program {missing[0]}")
versions = {owner[program]["version"] for program in sys.argv[1:]}
if len(versions) != 1:
    sys.exit(f"release: the programs have different versions: {versions}")
print(versions.pop(), *sorted({owner[program]["name"] for program in sys.argv[1:]}))
' "${programs[@]}")
read -r version packages <<<"$described"
selected=()
for package in $packages; do
    selected+=(--package "$package")
done

# The time in the archives: of the commit, not of the build.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
[ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "release: warning: this checkout has changes that are not committed, and they will be in the archives" >&2

new=$out/.new-$$
trap 'rm -rf "$new"' EXIT
rm -rf "$new"
mkdir "$new"

# Paths of this machine do not belong into the programs, and would make them differ from those built elsewhere.
cargo_home=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd)
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=/simzss --remap-path-prefix=$cargo_home=/cargo"
export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$work=/build -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/simzss"
export CARGO_PROFILE_RELEASE_STRIP=symbols
export CARGO_ZIGBUILD_CACHE_DIR=$work/zigbuild ZIG_GLOBAL_CACHE_DIR=$work/zig ZIG_LOCAL_CACHE_DIR=$work/zig
export PATH=$environment/bin:$PATH

if [ -n "$wheels" ]; then
    for architecture in "${architectures[@]}"; do
        for package in simzss-data simzss-ingest; do
            echo "release: building the wheel of $package for $architecture"
            CARGO_TARGET_DIR=$work tools/wheel.sh "$package" "$new" --zig --target "$architecture-unknown-linux-gnu" \
                --compatibility "manylinux_${GLIBC/./_}"
        done
    done
    "$environment/bin/python" tools/audit_wheels.py "$new"/*.whl
    (cd "$new" && sha256sum -- *.whl >SHA256SUMS)
    final=$out/simzss-$version-wheels
    rm -rf "$final"
    mv "$new" "$final"
    ls -l "$final"
    exit
fi

pages=$work/pages
for architecture in $(printf '%s\n' "$host" "${architectures[@]}" | awk '!seen[$0]++'); do
    target=$architecture-unknown-linux-gnu
    name=simzss-$version-$target
    echo "release: building $name"
    CARGO_TARGET_DIR=$work cargo zigbuild --release --locked --target "$target.$GLIBC" "${selected[@]}" --bins

    folder=$new/$name
    mkdir -p "$folder/bin"
    for program in "${programs[@]}"; do
        install -m 755 "$work/$target/release/$program" "$folder/bin/"
    done

    if [ "$architecture" = "$host" ]; then
        rm -rf "$pages"
        mkdir -p "$pages"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d,man/man1}
        for program in "${programs[@]}"; do
            "$folder/bin/$program" --generate bash >"$pages/bash-completion/completions/$program"
            "$folder/bin/$program" --generate zsh >"$pages/zsh/site-functions/_$program"
            "$folder/bin/$program" --generate fish >"$pages/fish/vendor_completions.d/$program.fish"
            "$folder/bin/$program" --generate man "$pages/man/man1"
        done
    fi
    cp -R "$pages" "$folder/share"

    cp README.md LICENSE-MIT LICENSE-APACHE "$folder/"
    tools/third_party.py --target "$target" "${selected[@]}" --out "$folder/licences"
    cp concepts/models/README.md "$folder/licences/LANGUAGE-DATA.md"

    # The same bytes for the same programs: sorted names, no owner, one time, no time in gzip's header.
    tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mode='u+rw,go=rX' --mtime="@$SOURCE_DATE_EPOCH" \
        -C "$new" -cf - "$name" | gzip -9 --no-name >"$new/$name.tar.gz"
    rm -rf "$folder"
done
(cd "$new" && sha256sum -- *.tar.gz >SHA256SUMS)

final=$out/simzss-$version
rm -rf "$final"
mv "$new" "$final"
ls -l "$final"
echo "release: done; try it with tests/release.sh $final/simzss-$version-$host-unknown-linux-gnu.tar.gz"
