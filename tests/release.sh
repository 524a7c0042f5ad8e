#!/usr/bin/env bash
# Tries a release archive of this machine's architecture where nothing else is installed: unpacks it into an empty root
# file system, adds the C library alone and runs the programs there.
#
#   tests/release.sh [ARCHIVE]         default: the newest one that tools/release.sh made
#
# Needs readelf (binutils), and root or user namespaces for chroot; says which part was left out and why.
set -euo pipefail
cd "$(dirname "$0")/.."

# The newest glibc that the programs may ask for.
GLIBC=2.28
# What belongs to glibc. Anything else would have to be installed first.
ALLOWED='^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|ld-linux-(x86-64\.so\.2|aarch64\.so\.1))$'

passed=0 failed=0
fail() {
    echo "FAILED  $*"
    failed=$((failed + 1))
}
# shellcheck disable=SC2317 # called through `check`
check() { # description, command...
    local what=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok      $what"
        passed=$((passed + 1))
    else
        fail "$what: $*"
        sed 's/^/        /' "$work/log"
    fi
}

case "${1:-}" in
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
archive=${1:-}
if [ -z "$archive" ]; then
    made="${CARGO_TARGET_DIR:-target}/release-archives"
    archive=$(find "$made" -not -path '*/.new-*' -name "simzss-*-$(uname -m)-unknown-linux-gnu.tar.gz" -printf '%T@ %p\n' 2>/dev/null |
        sort -n | tail -n 1 | cut -d' ' -f2-)
    [ -n "$archive" ] || { echo "release test: no archive for $(uname -m) in $made; run tools/release.sh first" >&2; exit 1; }
fi
[ -f "$archive" ] || { echo "release test: $archive does not exist" >&2; exit 1; }
command -v readelf >/dev/null || { echo "release test: readelf is missing: apt-get install binutils" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"
tar -xzf "$archive" -C "$root" --strip-components=1
version=$(basename "$archive" | sed -E 's/^simzss-(.*)-(x86_64|aarch64)-unknown-linux-gnu\.tar\.gz$/\1/')

# All three, or those of an archive that `tools/release.sh --only` made.
programs=()
for program in "$root"/bin/*; do
    programs+=("$(basename "$program")")
done

check_files() {
    local program file
    for program in "${programs[@]}"; do
        for file in "bin/$program" "share/bash-completion/completions/$program" "share/zsh/site-functions/_$program" \
            "share/fish/vendor_completions.d/$program.fish" "share/man/man1/$program.1"; do
            [ -s "$root/$file" ] || { echo "$file is missing or empty"; return 1; }
        done
        bash -n "$root/share/bash-completion/completions/$program" || return 1
    done
    for file in README.md LICENSE-MIT LICENSE-APACHE licences/THIRD-PARTY.txt licences/rust-standard-library.html \
        licences/LANGUAGE-DATA.md; do
        [ -s "$root/$file" ] || { echo "$file is missing or empty"; return 1; }
    done
    # C libraries and what their licences ask to be said.
    for file in mozjpeg-sys zstd-sys ring "Independent JPEG Group" "Facebook" "Princeton"; do
        grep -rqs "$file" "$root/licences" || { echo "licences/ does not mention $file"; return 1; }
    done
}
check "the archive is complete" check_files

if [ -f "$(dirname "$archive")/SHA256SUMS" ]; then
    check_sum() { (cd "$(dirname "$archive")" && sha256sum --check --strict SHA256SUMS); }
    check "its checksum is right" check_sum
fi

check_glibc() { # program
    local newest
    newest=$(readelf --wide --version-info "$1" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    echo "newest symbol version: ${newest:-none}"
    [ -n "$newest" ] && [ "$(printf '%s\n' "$newest" "GLIBC_$GLIBC" | sort -V | tail -n 1)" = "GLIBC_$GLIBC" ]
}
check_libraries() { # program
    local needed
    needed=$(readelf --wide --dynamic "$1" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
    [ -n "$needed" ] && ! grep -vE "$ALLOWED" <<<"$needed"
}
check_paths() { # program
    ! grep -aoE -m 3 "($HOME/|$PWD/)[[:print:]]{1,80}" "$1"
}
for program in "${programs[@]}"; do
    check "$program needs no newer glibc than $GLIBC" check_glibc "$root/bin/$program"
    check "$program needs no other library" check_libraries "$root/bin/$program"
    check "$program contains no path of the machine that built it" check_paths "$root/bin/$program"
done

# The root file system: what is in the archive, and glibc.
for library in libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1; do
    for folder in /lib64 "/lib/$(uname -m)-linux-gnu" /usr/lib64 /lib; do
        if [ -e "$folder/$library" ]; then
            mkdir -p "$root/lib" "$root/lib64"
            cp --dereference "$folder/$library" "$root/lib64/"
            cp --dereference "$folder/$library" "$root/lib/"
            break
        fi
    done
done
# Not on everybody's PATH.
export PATH=$PATH:/usr/sbin:/sbin
inside=()
if chroot=$(command -v chroot); then
    if [ "$(id -u)" = 0 ]; then
        inside=("$chroot" "$root")
    elif unshare --user --map-root-user true 2>/dev/null; then
        inside=("$(command -v unshare)" --user --map-root-user "$chroot" "$root")
    fi
fi

if [ ${#inside[@]} -eq 0 ]; then
    echo "skipped running the programs: chroot needs root or user namespaces"
else
    # Without the environment of this machine either.
    run() { env -i "${inside[@]}" "$@"; }
    says() { # text, command...
        local wanted=$1
        shift
        run "$@" | tee "$work/output" || return 1
        grep -qF -- "$wanted" "$work/output"
    }
    for program in "${programs[@]}"; do
        # tools-sql answers as `tools sql`.
        check "$program runs" says "${program/-/ } $version" "/bin/$program" --version
    done
    echo "a man riding a red motorcycle next to two parked buses" >"$root/captions.txt"
    check "ingest tag --text" says '"concept":"motorcycle"' /bin/ingest tag --text /captions.txt
    check "tools scenes" run /bin/tools scenes --out /scenes --count 20
    for image in "$root"/scenes/images/*.jpg; do
        [ -e "$image" ] || break
        echo "a photo of a red ball and a tree" >"${image%.jpg}.txt"
    done
    check "ingest shard" run /bin/ingest shard /scenes/images --out /shards
    check "ingest tag" run /bin/ingest tag /shards
    check "ingest verify" run /bin/ingest verify /shards
    check "tools stats" says "tree" /bin/tools stats /shards --out /statistics
    check "tools report" run /bin/tools report /shards --out /report.html
    if [ -e "$root/bin/tools-sql" ]; then
        check "tools sql" says "20" /bin/tools sql --format csv "SELECT count(*) FROM samples" /shards
        check "tools-sql" says "20" /bin/tools-sql --format csv "SELECT count(*) FROM mentions WHERE concept = 'tree'" /shards
    else
        echo "skipped SQL: this archive was made without tools-sql"
    fi
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
