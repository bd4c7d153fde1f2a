"""Ray Serve behind ``inference``: a deployment handle with our exceptions, ``serve.batch`` for small requests."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.domain.errors import QueueFullError, ServiceError
from serve_app.inference.encoder_client import Coalesce, coalesce
from serve_app.inference.replica_caller import DeploymentFailedError, ReplicaLostError

coalesce_small: Coalesce = serve.batch(max_batch_size=64, batch_wait_timeout_s=0, max_concurrent_batches=16)(coalesce)


class ServeHandle:
    """Implements ``inference.replica_caller.Deployment`` on a deployment handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        """Wraps a handle."""
        self._handle = handle

    async def call(self, method: str, *args: Any) -> Any:
        """See ``Deployment.call``."""
        try:
            return await getattr(self._handle, method).remote(*args)
        except (RayActorError, ObjectLostError, ReplicaUnavailableError) as error:  # an answer dies with its owner
            raise ReplicaLostError("the model's replicas died under this request; try again later") from error
        except BackPressureError as error:
            raise QueueFullError("too many calls wait for the model; try again later") from error
        except DeploymentUnavailableError as error:
            raise DeploymentFailedError("the model could not be deployed; see the Ray dashboard") from error
        except RayTaskError as error:
            if isinstance(error.cause, ServiceError):  # its own message, without Ray's remote trace
                raise error.cause from None
            raise
