"""Ray: placement and preflight, the actor, and the executor that passes messages through the object store."""

from engine.runtimes.ray.cluster import start_private_ray
from engine.runtimes.ray.object_store import ObjectStoreRuntime

__all__ = ["ObjectStoreRuntime", "start_private_ray"]
