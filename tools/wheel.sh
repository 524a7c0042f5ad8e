#!/usr/bin/env bash
# Builds the wheel of one of the Python packages, with the licences of everything that is linked into it.
#
#   tools/wheel.sh simzss-data | simzss-ingest  OUT  [options of `maturin build`]
#
# Such as `--features features` for what ./check has compiled already, or what tools/release.sh adds for an old glibc. Needs
# cargo, python3 and maturin on the PATH.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '4,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
package=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
shift 2
cd "$(dirname "$0")/.."

case $package in
    simzss-data) folder=loader/python crate=simzss-data-python ;;
    simzss-ingest) folder=ingest crate=simzss-ingest ;;
    *) echo "wheel: the packages are simzss-data and simzss-ingest, not $package" >&2; exit 2 ;;
esac
for ((at = 1, target = 0; at < $#; at++)); do
    [ "${!at}" != --target ] || target=$((at + 1))
done
if [ "$target" != 0 ]; then target=${!target}; else target=$(rustc -vV | sed -n 's/^host: //p'); fi

# `license-files` in pyproject.toml names this folder, which git ignores.
licences=$folder/licences
rm -rf "$licences"
tools/third_party.py --target "$target" --package "$crate" --out "$licences"
cp LICENSE-MIT LICENSE-APACHE "$licences/"
cp concepts/models/README.md "$licences/LANGUAGE-DATA.md"

maturin build --quiet --release --locked --manifest-path "$folder/Cargo.toml" --out "$out" "$@"
