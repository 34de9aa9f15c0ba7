"""Download of published data sets, when the recipe asks for it."""

from __future__ import annotations

from pathlib import Path

from engine.errors import DataError

DOWNLOADABLE = ("cifar10", "cifar100", "svhn", "stl10")


def download(name: str, root: Path) -> None:
    """Fetch one of the `DOWNLOADABLE` sets into `root` with torchvision, which checks what it received.

    Raises:
        DataError: the download failed.
    """
    # Imported late: torchvision takes a second to import and is needed for nothing else here.
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    try:
        root.mkdir(parents=True, exist_ok=True)
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
            f"downloading {name} into {root} failed ({type(error).__name__}: {error}); "
            f"check the network, or copy the files there and set data.download=false"
        ) from error
