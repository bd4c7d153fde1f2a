"""Settings that every deployment shares (replicas, resources, redeploys), and those of the HTTP replicas."""

from typing import Annotated, Any

from pydantic import Field

from serve_app.settings.frozen_settings import Auto, FrozenSettings


class DeploymentSettings(FrozenSettings):
    """Replicas of a deployment and their resources, in Ray Serve's terms.

    Attributes:
        num_replicas: Fixed number, unless ``autoscaling_config`` is given.
        autoscaling_config: Ray Serve's, for example ``{min_replicas: 1, max_replicas: 4,
            target_ongoing_requests: 32}``.
        num_cpus: CPUs reserved for a replica. A reservation, not a cap: small numbers leave room for
            training on a small machine.
        max_ongoing_requests: Calls that a replica works on at once. The encoder orders and bounds its
            work itself, in tokens, so this should be far above the number of clients.
        max_surge_percent: New replicas that a redeploy starts before it stops old ones, in percent of the running
            ones, rounded up. ``auto``: if a node has room for one more replica, 100 for one or two replicas and 25
            for more; else 0, so that each replica stops before the new one starts, which the start log says. A number
            is taken as it is: without room the redeploy waits, and the old replicas serve on.
        max_replicas_per_node: Replicas that one node may hold, so that its death leaves the others. A replica that
            finds no node waits for one. ``auto``: half of the replicas if at least two nodes can hold one, no limit
            on a single machine; with autoscaling more, if ``max_replicas`` needs it. null: no limit. During a
            redeploy old and new replicas are counted separately.
    """

    num_replicas: int = Field(default=1, ge=1)
    autoscaling_config: dict[str, Any] | None = None
    num_cpus: float = Field(default=0.1, ge=0)
    max_ongoing_requests: int = Field(default=2000, ge=1)
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] | Auto = "auto"
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | Auto | None = "auto"

    @property
    def min_replicas(self) -> int:
        """Smallest number of replicas."""
        return int((self.autoscaling_config or {"min_replicas": self.num_replicas}).get("min_replicas", 1))

    @property
    def max_replicas(self) -> int:
        """Largest number of replicas."""
        return int((self.autoscaling_config or {}).get("max_replicas", self.num_replicas))


class IngressSettings(DeploymentSettings):
    """The HTTP replicas.

    Attributes:
        max_ongoing_requests: Requests that a replica works on at once, those that are still being read included. It
            is above the 4,096 connections of HAProxy, because requests that wait in HAProxy use memory that none
            of these settings bounds.
    """

    max_ongoing_requests: int = Field(default=5000, ge=1)
