#!/usr/bin/env python3
"""Checks that wheels are what their names and their descriptions say.

    tools/audit_wheels.py WHEEL..

The description is one that the Python index shows (twine); a wheel for all versions of Python from one on uses nothing newer of it
(abi3audit); it runs on every system with the glibc of its name (auditwheel); it has the licences of what it contains. Needs twine,
abi3audit and auditwheel next to the Python that runs it.
"""

import pathlib
import re
import subprocess
import sys
import zipfile

BIN = pathlib.Path(sys.executable).parent
LICENCES = {"LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt", "rust-standard-library.html", "LANGUAGE-DATA.md"}


def run(program, *arguments):
    done = subprocess.run([BIN / program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"audit_wheels: {program}:\n{done.stdout}")
    return done.stdout


def glibc(tag):
    """The oldest glibc of a platform tag such as manylinux_2_28_x86_64."""
    found = re.search(r"manylinux_(\d+)_(\d+)_", tag)
    return found and tuple(map(int, found.groups()))


def main():
    wheels = [pathlib.Path(name) for name in sys.argv[1:]]
    if not wheels:
        sys.exit(__doc__)
    run("twine", "check", "--strict", *wheels)
    for wheel in wheels:
        if "-abi3-" in wheel.name:
            run("abi3audit", "--strict", wheel)
        shown = run("auditwheel", "show", wheel)
        needed = re.search(r'following platform tag:\s*"([^"]+)"', shown)
        needed, named = glibc(needed[1] if needed else ""), glibc(wheel.stem)
        if not needed or not named or needed > named:
            sys.exit(f"audit_wheels: {wheel.name} does not run everywhere where its name says it does:\n{shown}")
        names = {name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/licenses/" in name}
        if missing := LICENCES - names:
            sys.exit(f"audit_wheels: {wheel.name} lacks the licences {sorted(missing)}")
        print(f"{wheel.name}: runs with glibc {'.'.join(map(str, needed))} and newer, {wheel.stat().st_size / 1e6:.1f} MB")


main()
