#!/usr/bin/env bash
# Checks kubernetes.yaml: the Kubernetes schema, and that the query names every worker.
# tools/audit.sh installs the checker (once, from the Python index), runs this, and checks the shell scripts of this folder.
set -euo pipefail
cd "$(dirname "$0")"
checkers=$(../../../tools/audit.sh --tools)
"$checkers/kubernetes-validate" --strict kubernetes.yaml
"$checkers/python" - <<'PY'
import yaml
service, policy, workers, job = yaml.safe_load_all(open("kubernetes.yaml"))
container = workers["spec"]["template"]["spec"]["containers"][0]
port = container["ports"][0]["containerPort"]
assert f"--listen=0.0.0.0:{port}" in container["args"], "the port of the workers differs from --listen"
assert port == service["spec"]["ports"][0]["port"] == policy["spec"]["ingress"][0]["ports"][0]["port"], "the ports differ"
name, domain = workers["metadata"]["name"], service["metadata"]["name"]
assert workers["spec"]["serviceName"] == domain, "the name of the service differs"
query = job["spec"]["template"]["spec"]["containers"][0]
named = [f"{name}-{number}.{domain}:{port}" for number in range(workers["spec"]["replicas"])]
assert "--workers=" + ",".join(named) in query["args"], "--workers does not name all replicas"
assert query["image"] == container["image"], "the query and its workers need the same image"
labels = [pods["spec"]["template"]["metadata"]["labels"]["app"] for pods in (workers, job)]
allowed = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]["values"]
assert sorted(labels) == sorted(allowed), "the policy does not let in the pods of this file"
PY
echo "kubernetes.yaml is valid"
