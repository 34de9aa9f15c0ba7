"""Direct links between learners: who gives whom what, the rings, and how two learners get one."""

from engine.runtimes.ray.links.copies import Copies, HostCopies, copies_for
from engine.runtimes.ray.links.ends import GivingEnd, TakingEnd
from engine.runtimes.ray.links.lasting import LastingLinks, LastingTaking
from engine.runtimes.ray.links.lasting_giving import LastingGiving, Position
from engine.runtimes.ray.links.rendezvous import HAS_NAMELESS_MEMORY, Address, Links, PlannedLink, Rendezvous
from engine.runtimes.ray.links.rings import WORDS, Way
from engine.runtimes.ray.links.routes import Route, routes_of, takers_of

__all__ = [
    "HAS_NAMELESS_MEMORY",
    "WORDS",
    "Address",
    "Copies",
    "GivingEnd",
    "HostCopies",
    "LastingGiving",
    "LastingLinks",
    "LastingTaking",
    "Links",
    "PlannedLink",
    "Position",
    "Rendezvous",
    "Route",
    "TakingEnd",
    "Way",
    "copies_for",
    "routes_of",
    "takers_of",
]
