#!/usr/bin/env bash
# Checks everything around the code. CI runs it; each check ends with one line, and a failed one prints why.
#
#   tools/audit.sh                     all checks
#   tools/audit.sh shell links         only these
#   tools/audit.sh --tools             installs the checkers and prints their folder
#
#   dependencies  licences, sources and duplicate versions of all packages (deny.toml, by cargo-deny)
#   advisories    known vulnerabilities; skipped where the advisory database cannot be reached
#   unused        dependencies that no code uses (by cargo-shear)
#   shell         all shell scripts (by shellcheck)
#   docker        the Dockerfiles (by hadolint)
#   cluster       the files for SLURM and Kubernetes
#   links         links between files of the repository
#
# Needs cargo, git and python3 with venv and, once, the Python index for the checkers in target/audit (50 MB to download,
# 230 MB on disk). Without the index the checks that need them are skipped; in CI they fail.
set -euo pipefail
cd "$(dirname "$0")/.."

ALL=(dependencies advisories unused shell docker cluster links)
KUBERNETES=(kubernetes-validate==1.37.0 pyyaml==6.0.4)

environment=${CARGO_TARGET_DIR:-target}/audit
mkdir -p "$environment"
environment=$(cd "$environment" && pwd)
bin=$environment/bin

# Installs the checkers where they are not there yet; the reason in $why when that is impossible.
install() {
    local wanted log=$environment.log
    wanted=$(cat tools/audit-binaries.txt; echo "${KUBERNETES[*]}"; python3 --version)
    [ "$(cat "$environment/made-for" 2>/dev/null)" = "$wanted" ] && return
    # Two checks at once would install into the same folder.
    exec 9>"$environment.lock"
    flock 9 2>/dev/null || true
    [ "$(cat "$environment/made-for" 2>/dev/null)" = "$wanted" ] && return
    echo "audit: installing the checkers into $environment" >&2
    rm -rf "$environment"
    if ! python3 -m venv "$environment" >"$log" 2>&1; then
        why="python3 cannot make a virtual environment: apt-get install python3-venv"
        return 1
    fi
    if ! { "$bin/python" -m pip install --disable-pip-version-check --only-binary=:all: --no-deps --require-hashes \
        -r tools/audit-binaries.txt && "$bin/python" -m pip install --disable-pip-version-check --only-binary=:all: \
        "${KUBERNETES[@]}"; } >"$log" 2>&1; then
        why="the checkers cannot be installed from the Python index: $(grep -m 1 ERROR "$log" || tail -n 1 "$log")"
        return 1
    fi
    echo "$wanted" >"$environment/made-for"
    rm -f "$log"
}

chosen=()
for argument in "$@"; do
    case "$argument" in
        --tools)
            why=
            install || { echo "audit: $why" >&2; exit 1; }
            echo "$bin"
            exit 0
            ;;
        -h | --help) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *)
            case " ${ALL[*]} " in
                *" $argument "*) chosen+=("$argument") ;;
                *) echo "audit: unknown check $argument; the checks are ${ALL[*]}" >&2; exit 2 ;;
            esac
            ;;
    esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${ALL[@]}")

files() { git ls-files -z --cached --others --exclude-standard; }

# An exception that is no longer needed fails too, so that the list of deny.toml stays true.
dependencies() {
    "$bin/cargo-deny" --locked check --hide-inclusion-graph -D unmatched-skip -D unnecessary-skip licenses bans sources
}

advisories() {
    local reply
    # Fetching is what fails without the network, so it is asked for on its own.
    if ! reply=$(timeout 60 "$bin/cargo-deny" fetch db 2>&1); then
        skipped="the advisory database cannot be reached: $(tail -n 1 <<<"$reply")"
        return 0
    fi
    "$bin/cargo-deny" --locked check --disable-fetch advisories
}

# tests/features has dependencies instead of code.
unused() { "$bin/cargo-shear" --locked --deny-warnings --exclude features; }

# Everything that starts as a shell script does, whatever it is called.
shell() {
    local file first scripts=()
    while IFS= read -r -d '' file; do
        [ -f "$file" ] || continue
        first=$(head -c 40 "$file" | tr -d '\0' | head -n 1)
        [[ $first =~ ^'#!'.*[/\ ](ba|da)?sh ]] && scripts+=("$file")
    done < <(files)
    [ ${#scripts[@]} -gt 0 ] || { echo "no shell script was found, which cannot be right"; return 1; }
    local shellcheck=$bin/shellcheck
    if [ ! -x "$shellcheck" ] && ! shellcheck=$(command -v shellcheck); then
        skipped="the Python index has no shellcheck for this machine: apt-get install shellcheck"
        return 0
    fi
    "$shellcheck" "${scripts[@]}"
}

docker() {
    local found
    mapfile -d '' found < <(files | grep -zE '(^|/)Dockerfile$')
    [ ${#found[@]} -gt 0 ] || { echo "no Dockerfile was found, which cannot be right"; return 1; }
    "$bin/hadolint" "${found[@]}"
}

cluster() { ingest/cluster/check.sh && trainer/cluster/check.sh && tools/sql/cluster/check.sh; }

links() { tools/links.py; }

why='' passed=0 failed=0 left_out=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for check in "${chosen[@]}"; do
    skipped=''
    if [ "$check" != links ] && { [ -n "$why" ] || ! install; }; then
        if [ "${CI:-}" = true ]; then
            echo "FAILED   $check: $why"
            failed=$((failed + 1))
        else
            echo "skipped  $check: $why"
            left_out=$((left_out + 1))
        fi
        continue
    fi
    started=$SECONDS
    if "$check" >"$log" 2>&1; then
        if [ -n "$skipped" ]; then
            echo "skipped  $check: $skipped"
            left_out=$((left_out + 1))
        else
            echo "ok       $check ($((SECONDS - started)) s)"
            passed=$((passed + 1))
        fi
    else
        echo "FAILED   $check"
        sed 's/^/         /' "$log"
        failed=$((failed + 1))
    fi
done
echo "audit: $passed passed, $failed failed, $left_out skipped"
[ "$failed" = 0 ]
