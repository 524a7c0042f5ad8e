#!/usr/bin/env python3
"""Checks the links inside the repository: every relative link of a Markdown file must lead to a file that git tracks (or
will track), and every #anchor to a heading.

    tools/links.py [FILE.md ...]        default: all Markdown files of the repository

Links to other sites are not followed. Exit code 1 and one line per broken link. Needs git, and no Python package.
"""

import pathlib
import re
import subprocess
import sys
import unicodedata
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
# [text](target), ![text](target "title"), [name]: target, <a href="target">, <img src="target">, <a id="anchor">
INLINE = re.compile(r"\]\(\s*<?([^)<>\s]+)>?(?:\s+[\"'][^)]*)?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
ATTRIBUTE = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=[\"']([^\"']+)")
ANCHOR = re.compile(r"<[a-z]+\b[^>]*?\b(?:id|name)=[\"']([^\"']+)")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)


def tracked():
    """Files that a clone has, and will have after the next commit."""
    listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name for name in listing.split("\0") if name and (ROOT / name).exists()}


def prose(text):
    """Numbered lines outside of code blocks."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None:
            if mark and mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and not line.strip().strip(fence[0]):
                fence = None
        else:
            yield number, line


def slug(heading):
    """The anchor that GitHub gives a heading."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    heading = re.sub(r"<[^>]+>", "", heading).lower()
    kept = (c for c in heading if c in " -_" or unicodedata.category(c)[0] in "LMN")
    return "".join(kept).replace(" ", "-")


def anchors(text):
    found, counts = set(), {}
    for _, line in prose(text):
        found.update(ANCHOR.findall(line))
        if heading := HEADING.match(line):
            name = slug(heading[1])
            repeated = counts.get(name, 0)
            counts[name] = repeated + 1
            found.add(f"{name}-{repeated}" if repeated else name)
    return found


def links(text):
    for number, line in prose(text):
        line = CODE.sub("", line)
        for pattern in (INLINE, REFERENCE, ATTRIBUTE):
            for target in pattern.findall(line):
                yield number, target


def problem(page, target, files, folders):
    """What is wrong with a link of a page; None when nothing is."""
    if ELSEWHERE.match(target):
        return None
    path, _, anchor = urllib.parse.unquote(target).partition("#")
    if path.startswith("/"):
        return "starts with /, which leads nowhere outside of a web site"
    there = page
    if path:
        try:
            there = (page.parent / path).resolve().relative_to(ROOT)
        except ValueError:
            return "leads out of the repository"
        there = ROOT / there
        name = there.relative_to(ROOT).as_posix()
        if name not in files and name not in folders:
            return f"{name} does not exist in the repository"
    if anchor and there.suffix == ".md" and anchor not in anchors(there.read_text(encoding="utf-8")):
        return f"{there.relative_to(ROOT)} has no heading for #{anchor}"
    return None


def main():
    files = tracked()
    folders = {parent.as_posix() for name in files for parent in pathlib.PurePosixPath(name).parents}
    chosen = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    pages = chosen or sorted(ROOT / name for name in files if name.endswith(".md"))
    checked = broken = 0
    for page in pages:
        for number, target in links(page.read_text(encoding="utf-8")):
            checked += 1
            if why := problem(page, target, files, folders):
                broken += 1
                print(f"{page.relative_to(ROOT)}:{number}: {target}: {why}")
    if not checked:
        sys.exit("links: there is no link in any Markdown file, which cannot be right")
    print(f"{checked} links in {len(pages)} files, {broken} broken")
    sys.exit(1 if broken else 0)


main()
