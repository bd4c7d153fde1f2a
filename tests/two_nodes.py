"""A service on two nodes that are both this machine: ``python -m tests.two_nodes CONFIG``.

Each line of its input is the path of a config to deploy. When what was deployed runs, it answers with a line of JSON:
how many replicas of each deployment the nodes have that have any, and the fewest that took requests meanwhile. It ends
with its input.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails

NODES, CPUS = 2, 4


def main(first: str) -> None:
    """Serves until the input ends."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS})
    try:
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=CPUS)
        cluster.wait_for_nodes()
        ray.init(cluster.address, namespace="serve")
        config = _read(first)
        client = serve_start(http_options=config["http_options"], proxy_location="HeadOnly")  # one port for both nodes
        print(json.dumps(_deploy(client, config)), flush=True)
        for line in sys.stdin:
            print(json.dumps(_deploy(client, _read(line.strip()))), flush=True)
        client.shutdown()
    finally:
        cluster.shutdown()


def _read(path: str) -> Any:
    return yaml.safe_load(Path(path).read_text())


def _deploy(client: Any, config: Any) -> dict[str, Any]:
    """Deploys and waits until nothing of the version before is left."""
    before = {id for _, _, id, _ in _replicas(client)}
    fewest = _running(client)
    client.deploy_apps(ServeDeploySchema.model_validate(config))
    while _status(client) != "RUNNING" or before & {id for _, _, id, _ in _replicas(client)}:
        if running := _running(client):  # Serve lists no deployment at all while it builds the application
            fewest = Counter({name: min(count, running[name]) for name, count in fewest.items()})
        time.sleep(0.1)
    nodes: dict[str, Counter[str]] = defaultdict(Counter)
    for name, node, _, _ in _replicas(client):
        nodes[name][node] += 1
    return {"nodes": {name: sorted(counts.values()) for name, counts in nodes.items()}, "fewest": fewest}


def _status(client: Any) -> str:
    return next((str(application.status.value) for application in _details(client).applications.values()), "")


def _running(client: Any) -> Counter[str]:
    """How many replicas of each deployment take requests."""
    return Counter(name for name, _, _, state in _replicas(client) if state == "RUNNING")


def _replicas(client: Any) -> list[tuple[str, str, str, str]]:
    """Deployment, node, id and state of every replica, stopping ones included."""
    return [
        (deployment.name, str(replica.node_id), str(replica.replica_id), str(replica.state.value))
        for application in _details(client).applications.values()
        for deployment in application.deployments.values()
        for replica in deployment.replicas
    ]


def _details(client: Any) -> ServeInstanceDetails:
    return ServeInstanceDetails(**client.get_serve_details())


if __name__ == "__main__":
    main(sys.argv[1])
