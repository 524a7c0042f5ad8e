#!/usr/bin/env python3
"""Says which dependencies `./check CRATE` and `./check --sql` would compile with other features than `./check` and `./demo` do.

Compares cargo's own unit graphs. An unstable option prints them, hence RUSTC_BOOTSTRAP; nothing is compiled.
"""
import json
import os
import subprocess
import sys

PACKAGES = [
    "simzss-concepts", "simzss-disk", "simzss-storage", "simzss-jpeg", "simzss-loader", "simzss-program", "simzss-ingest",
    "simzss-trainer", "simzss-tools", "tests", "fuzz",
]


def features(command, selection):
    """Features by (package, version, whether it is compiled for procedural macros and build scripts)."""
    options = ["--release", "--locked", "--unit-graph", "-Zunstable-options"]
    graph = subprocess.run(["cargo", *command, *options, *selection], check=True, stdout=subprocess.PIPE,
                           env={**os.environ, "RUSTC_BOOTSTRAP": "1"}).stdout
    found = {}
    for unit in json.loads(graph)["units"]:
        package = unit["pkg_id"].split("#")[-1]
        if unit["mode"] == "build" and unit["target"]["kind"] != ["custom-build"] and "@" in package:
            host = unit["profile"]["opt_level"] == "0"
            found.setdefault((*package.split("@"), host), set()).update(unit["features"])
    return found


everything = features(["build"], [])
for key, names in features(["test", "--no-run"], []).items():
    everything.setdefault(key, set()).update(names)
selections = [("cargo build", features(["build"], [])), ("cargo test", features(["test", "--no-run"], []))]
selections += [(f"./check of {name}", features(["test", "--no-run"], ["-p", name])) for name in PACKAGES]
python = ["-p", "simzss-data-python", "--features", "features"]
selections.append(("./check --python", features(["build"], python)))
sql = features(["test", "--no-run"], ["-p", "simzss-tools-sql"])
selections.append(("./check --sql", sql))
missing = 0
# The SQL engine needs more of arrow and parquet, which are compiled again for it; but nothing else has to be.
for (name, version, host), names in sorted(sql.items()):
    more = names - everything.get((name, version, host), names)
    if more and not name.startswith(("arrow", "parquet")):
        missing += 1
        kind = "build-dependencies" if host else "dependencies"
        print(f"./check and ./demo: add {name} {version} with {sorted(more)} to [{kind}] of tests/features/Cargo.toml")
for label, found in selections:
    for (name, version, host), names in sorted(found.items()):
        if lacking := everything.get((name, version, host), set()) - names:
            missing += 1
            kind = "build-dependencies" if host else "dependencies"
            print(f"{label}: add {name} {version} with {sorted(lacking)} to [{kind}] of tests/features/Cargo.toml")
print(f"{missing} differences in the features of dependencies")
sys.exit(missing > 0)
