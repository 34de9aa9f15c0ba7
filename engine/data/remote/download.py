"""Download of published data sets, when the recipe asks for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.data.remote import uris
from engine.errors import DataError
from engine.reading import first_line

DOWNLOADABLE = ("cifar10", "cifar100", "svhn", "stl10")


def download(name: str, root: Path) -> None:
    """Fetch one of the `DOWNLOADABLE` sets into `root` with torchvision, which checks what it received.

    Raises:
        DataError: the download failed, or the server was silent for `uris.ANSWER_SECONDS`.
    """
    # Imported late: torchvision takes a second to import and is needed for nothing else here.
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    try:
        root.mkdir(parents=True, exist_ok=True)
        with _impatient():
            if name == "cifar10":
                datasets.CIFAR10(str(root), download=True)
            elif name == "cifar100":
                datasets.CIFAR100(str(root), download=True)
            elif name == "stl10":
                datasets.STL10(str(root), download=True)
            else:
                for split in ("train", "test"):
                    # The class itself would go on to read the files, with a reader that damaged ones can crash.
                    address, file_name, md5 = datasets.SVHN.split_list[split]
                    download_url(address, str(root), file_name, md5)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"downloading {name} into {root} failed ({type(error).__name__}: {first_line(error)}); "
            f"check the network, or copy the files there and set data.download=false"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    """Give up on servers that say nothing: torchvision states no time, and a connection of Python waits without end.

    The time is of the whole process, so that other threads' new connections have it, too, until the block ends.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(uris.ANSWER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
