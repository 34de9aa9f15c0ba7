"""Ray: placement and preflight, the actors, and two executors: messages in the object store, or on direct links."""

from engine.runtimes.ray.cluster import disconnect, start_private_ray
from engine.runtimes.ray.launch import open_on_ray
from engine.runtimes.ray.object_store import ObjectStoreRuntime
from engine.runtimes.ray.private.current import lasting_private_ray
from engine.runtimes.ray.stream import StreamRuntime

__all__ = [
    "ObjectStoreRuntime",
    "StreamRuntime",
    "disconnect",
    "lasting_private_ray",
    "open_on_ray",
    "start_private_ray",
]
