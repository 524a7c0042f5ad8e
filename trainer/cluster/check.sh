#!/usr/bin/env bash
# Checks kubernetes.yaml: the Kubernetes schema, and that the numbers of processes agree.
# tools/audit.sh installs the checker (once, from the Python index), runs this, and checks the shell scripts of this folder.
set -euo pipefail
cd "$(dirname "$0")"
checkers=$(../../tools/audit.sh --tools)
"$checkers/kubernetes-validate" --strict kubernetes.yaml
"$checkers/python" - <<'PY'
import yaml
service, job = yaml.safe_load_all(open("kubernetes.yaml"))
spec = job["spec"]
environment = {e["name"]: e.get("value") for e in spec["template"]["spec"]["containers"][0]["env"]}
assert environment["WORLD_SIZE"] == str(spec["completions"]) == str(spec["parallelism"]), "the numbers of processes differ"
host, domain = environment["MASTER_ADDR"].split(".")
assert host == job["metadata"]["name"] + "-0", "MASTER_ADDR is not pod 0 of the job"
assert domain == service["metadata"]["name"] == spec["template"]["spec"]["subdomain"], "the name of the service differs"
assert int(environment["MASTER_PORT"]) == service["spec"]["ports"][0]["port"], "MASTER_PORT is not the service's port"
PY
echo "kubernetes.yaml is valid"
