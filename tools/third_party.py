#!/usr/bin/env python3
"""Writes the licences of everything that is linked into the programs, for the release archives.

    tools/third_party.py --target x86_64-unknown-linux-gnu --package simzss-ingest --package simzss-tools --out DIR

DIR gets THIRD-PARTY.txt (every package with its licence, then each distinct licence text once) and
rust-standard-library.html (the notices of the Rust standard library). Needs cargo and the packages' sources, which a
build has downloaded, and no Python package.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Licence files of the package, and of C libraries and fonts inside it, such as zstd-sys/zstd/LICENSE.
LICENCE_FILE = re.compile(r"licen[cs]e|^copying|^copyright|^notice|^(ofl|ufl)\.txt$", re.IGNORECASE)
# Source files with such names, and folders that are not linked in.
NOT_A_TEXT = {".rs", ".c", ".h", ".py", ".sh", ".toml", ".json", ".html"}
NOT_LINKED = {"assets", "benches", "doc", "docs", "examples", "test", "tests", "windows"}

INTRODUCTION = """\
THIRD-PARTY SOFTWARE

The programs contain the packages below. Each is listed with its licence and the numbers of its licence texts, which follow
the list. Where a licence offers a choice ("MIT OR Apache-2.0"), you may choose any one of them. The notices of the Rust
standard library are in rust-standard-library.html, those of the embedded language data in LANGUAGE-DATA.md.

This software is based in part on the work of the Independent JPEG Group.
"""


def cargo(*arguments):
    """The output of a cargo command; its messages go to the terminal."""
    result = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"third_party: cargo {arguments[0]} failed")
    return result.stdout


def linked(target, programs, features):
    """Names and versions of what is linked in: no build scripts, no procedural macros, no tests."""
    chosen = [argument for program in programs for argument in ("--package", program)] + features
    tree = cargo("tree", "--locked", "--edges", "normal,no-proc-macro", "--target", target, "--prefix", "none",
                 "--format", "{p}", *chosen)
    found = set()
    for line in tree.splitlines():
        words = line.split()
        if len(words) >= 2 and "(proc-macro)" not in words:
            found.add((words[0], words[1].removeprefix("v")))
    return found


def sources(target, features):
    metadata = cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target, *features)
    return {(package["name"], package["version"]): package for package in json.loads(metadata)["packages"]}


def texts_in(folder):
    """The licence texts in a package's folder."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if (LICENCE_FILE.search(path.name) and path.is_file() and path.suffix.lower() not in NOT_A_TEXT
                and not NOT_LINKED.intersection(part.lower() for part in inside.parts[:-1])):
            yield path.read_text(encoding="utf-8", errors="replace")


def repository(package):
    """The address of a package's repository, without a folder inside it."""
    address = (package["repository"] or "").removesuffix("/").removesuffix(".git")
    return re.sub(r"/(tree|blob)/.*", "", address).lower()


def standard_text(package):
    """The text of a common licence for a package that comes without one; None for an uncommon licence."""
    choices = re.split(r"\s+OR\s+|\s*/\s*", package["license"] or "")
    if "Apache-2.0" in choices:
        return (ROOT / "LICENSE-APACHE").read_text(encoding="utf-8")
    if "MIT" in choices:
        authors = ", ".join(package["authors"]) or f"the authors of {package['name']}"
        text, replaced = re.subn(r"^Copyright.*$", lambda _: f"Copyright (c) {authors}",
                                 (ROOT / "LICENSE-MIT").read_text(encoding="utf-8"), flags=re.MULTILINE)
        if replaced == 1:
            return text
    return None


def gather(packages, everything):
    """The texts of each package; from a package of the same repository, or the standard text, where it has none."""
    texts = {key: list(texts_in(pathlib.Path(package["manifest_path"]).parent)) for key, package in packages.items()}
    of_repository = collections.defaultdict(list)
    for key, package in sorted(everything.items()):
        if repository(package) and not of_repository[repository(package)]:
            of_repository[repository(package)] = (
                texts.get(key) or list(texts_in(pathlib.Path(package["manifest_path"]).parent)))
    without = []
    for key, package in packages.items():
        if not texts[key] and repository(package):
            texts[key] = of_repository[repository(package)]
        if not texts[key] and (text := standard_text(package)):
            texts[key] = [text]
        if not texts[key]:
            without.append(f"{key[0]} {key[1]} ({package['license']})")
    if without:
        sys.exit(f"third_party: no licence text for {', '.join(without)}")
    return texts


def page(packages, texts):
    """The whole file. Texts that differ only in white space are the same text."""
    numbers = {}
    lines = [INTRODUCTION]
    for key, package in sorted(packages.items()):
        mine = []
        for text in texts[key]:
            digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
            number, _ = numbers.setdefault(digest, (len(numbers) + 1, text))
            if number not in mine:
                mine.append(number)
        licence = package["license"] or "see the text"
        lines.append(f"{key[0]} {key[1]}: {licence} [{', '.join(map(str, sorted(mine)))}]")
        lines.append(f"    {package['repository'] or package['homepage'] or 'no address'}")
    for number, text in numbers.values():
        heading = f" [{number}] "
        lines.append(f"\n{heading:=^100}\n\n{text.strip()}")
    return "\n".join(lines) + "\n"


def standard_library():
    root = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    path = pathlib.Path(root) / "share/doc/rust/COPYRIGHT-library.html"
    if not path.is_file():
        sys.exit(f"third_party: {path} does not exist; install Rust with rustup, which puts it there")
    return path.read_text(encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="what the programs were built for")
    parser.add_argument("--package", required=True, action="append", help="package of a program; may be repeated")
    parser.add_argument("--features", action="append", default=[], help="PACKAGE/FEATURE of the build; may be repeated")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the output")
    arguments = parser.parse_args()

    features = [argument for feature in arguments.features for argument in ("--features", feature)]
    everything = sources(arguments.target, features)
    keys = linked(arguments.target, arguments.package, features)
    unknown = sorted(keys - everything.keys())
    if unknown:
        sys.exit(f"third_party: cargo metadata does not list {unknown}")
    # Our own packages have no source address.
    packages = {key: everything[key] for key in keys if everything[key]["source"]}
    if not packages:
        sys.exit("third_party: nothing is linked in, which cannot be right")
    text = page(packages, gather(packages, everything))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "THIRD-PARTY.txt").write_text(text, encoding="utf-8")
    (arguments.out / "rust-standard-library.html").write_text(standard_library(), encoding="utf-8")
    print(f"third_party: {len(packages)} packages, {len(text) // 1000} kB")


main()
