#!/usr/bin/env bash
# Checks kubernetes.yaml: the Kubernetes schema, and that the two numbers of parts agree.
# tools/audit.sh installs the checker (once, from the Python index), runs this, and checks the shell scripts of this folder.
set -euo pipefail
cd "$(dirname "$0")"
checkers=$(../../tools/audit.sh --tools)
"$checkers/kubernetes-validate" --strict kubernetes.yaml
"$checkers/python" - <<'PY'
import yaml
job = yaml.safe_load(open("kubernetes.yaml"))["spec"]
environment = {e["name"]: e["value"] for e in job["template"]["spec"]["containers"][0]["env"]}
assert environment["JOB_COMPLETIONS"] == str(job["completions"]), "JOB_COMPLETIONS differs from spec.completions"
PY
echo "kubernetes.yaml is valid"
