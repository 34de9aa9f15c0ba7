"""What does a URI such as s3://BUCKET/FOLDER lead to, and how are files listed, fetched and sent there?"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from engine.atomic import replacing
from engine.errors import InputError

# Each read or write of an object store may be a request of its own.
_BLOCK_BYTES = 16 << 20
_FETCHED_AT_ONCE = 8
# Google's client tries for 15 minutes unless told otherwise, in silence.
_RETRY_SECONDS = 60
_SECRETS = {"client_secret", "sig", "sas_token", "access_token", "secret_key"}

_REMEDIES = {
    "s3": "check the bucket's name and region, the network, and this machine's credentials (a role, ~/.aws, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    "gs": "check the bucket's name, the network, and this machine's credentials (a service account, or "
    "GOOGLE_APPLICATION_CREDENTIALS; gs://anonymous@BUCKET/... for public ones)",
    "abfs": "check the account and container, the network, and this machine's credentials (a managed identity, or "
    "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)",
    "hdfs": "check the name node, and that this machine has libhdfs (HADOOP_HOME, JAVA_HOME, CLASSPATH)",
    "file": "check that the folder exists on this machine and may be read and written",
}
_SAME_AS = {"gcs": "gs", "abfss": "abfs", "viewfs": "hdfs"}


@dataclass(frozen=True)
class Place:
    """A folder in one of pyarrow's file systems."""

    filesystem: FileSystem
    path: str

    def join(self, name: str) -> str:
        """Return the path of what is called `name` in this folder."""
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def is_file(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return self.filesystem.get_file_info(self.join(name)).type == FileType.File

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all files and folders in a folder, in no order; nothing where there is no folder."""
        return [info.base_name for info in self.filesystem.get_file_info(FileSelector(self.join(folder), True))]

    def read(self, name: str) -> bytes:
        """Return what is in a file."""
        # Left to itself, pyarrow would unpack what is called .gz.
        with self.filesystem.open_input_stream(self.join(name), compression=None) as file:
            content: bytes = file.read()
        return content

    def send(self, source: Path, name: str) -> None:
        """Copy a local file here; where files can be renamed, it appears whole or not at all."""
        if isinstance(self.filesystem, LocalFileSystem):
            with replacing(Path(self.join(name))) as aside:
                shutil.copyfile(source, aside)
            return
        # No folder is made: object stores have none, and some would make a bucket of a wrong name.
        stream = self.filesystem.open_output_stream(self.join(name), compression=None)
        with stream, source.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                stream.write(block)

    def copy(self, source: str, name: str) -> None:
        """Copy a file that is here already, without its bytes leaving the place."""
        if isinstance(self.filesystem, LocalFileSystem):
            Path(self.join(name)).parent.mkdir(parents=True, exist_ok=True)
        self.filesystem.copy_file(self.join(source), self.join(name))

    def remove_file(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.is_file(name):
            self.filesystem.delete_file(self.join(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.join(name))


@dataclass(frozen=True)
class RemoteFile:
    """One file as its file system lists it."""

    name: str
    """Path relative to the folder that was listed."""

    size: int
    """Bytes."""

    modified_ns: int
    """Time of the last change; 0 where the file system keeps none."""


def is_uri(text: str) -> bool:
    """Tell a URI such as s3://BUCKET/FOLDER from the path of a folder."""
    return "://" in text


@contextlib.contextmanager
def storage_errors(field: str, uri: str, kind: type[InputError]) -> Iterator[None]:
    """Turn what a file system raises into an error of `kind` that names the field, what was found and the remedy.

    Args:
        field: name of the field that holds the address.
        uri: the address, or the path of a folder.
        kind: the error to raise.
    """
    try:
        yield
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise kind(f"{field}={without_secret(uri)}: {first_words(error)}; {_remedy(uri)}") from error


def first_words(error: BaseException) -> str:
    """Return what an error says in one line; those of file systems run on for many."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 300 else f"{words[:300]}..."


def without_secret(uri: str) -> str:
    """Return a URI as it may be shown: without a user's password, and without what follows the question mark."""
    scheme, separator, rest = uri.partition("://")
    rest = rest.partition("?")[0]
    host, slash, path = rest.partition("/")
    # Azure's containers stand where others have a user.
    shown = host.rpartition("@")[2] if ":" in host.rpartition("@")[0] else host
    return f"{scheme}{separator}{shown}{slash}{path}"


def _remedy(uri: str) -> str:
    scheme = uri.partition("://")[0].lower() if is_uri(uri) else "file"
    known = _REMEDIES.get(_SAME_AS.get(scheme, scheme))
    return known or f"expected a URI that begins with one of {', '.join(f'{name}://' for name in _REMEDIES)}"


def connect(uri: str) -> Place:
    """Return the folder that a URI names; whether it exists is not known yet.

    Raises:
        ValueError, OSError, pyarrow.ArrowException: it is not a URI that can be used; see `storage_errors`.
    """
    parts = urlsplit(uri)
    if ":" in parts.netloc.rpartition("@")[0] or _SECRETS & set(parse_qs(parts.query)):
        raise ValueError("holds a password or key, which would be stored in the run folder; take it out of the URI")
    if _SAME_AS.get(parts.scheme, parts.scheme) == "gs" and "retry_limit_seconds" not in parts.query:
        uri += f"{'&' if parts.query else '?'}retry_limit_seconds={_RETRY_SECONDS}"
    filesystem, path = FileSystem.from_uri(uri)
    return Place(filesystem, path.rstrip("/") or path)


def list_files(place: Place) -> list[RemoteFile]:
    """Return all files below a folder in the order of their names, without hidden ones.

    Raises:
        OSError, pyarrow.ArrowException: there is no such folder, or it cannot be read.
    """
    info = place.filesystem.get_file_info(place.path)
    if info.type == FileType.NotFound:
        raise FileNotFoundError("there is nothing at this address")
    if info.type == FileType.File:
        raise NotADirectoryError("this is one file, expected the folder that holds it")
    found = []
    for info in place.filesystem.get_file_info(FileSelector(place.path, recursive=True)):
        name = info.path[len(place.path) :].lstrip("/")
        # Names come from others: this also leaves out "..", which would lead out of the folder.
        if info.type == FileType.File and not any(part.startswith(".") for part in name.split("/")):
            found.append(RemoteFile(name, info.size, info.mtime_ns or 0))
    return sorted(found, key=lambda file: file.name)


def download(place: Place, files: Sequence[RemoteFile], folder: Path, progress: Callable[[float], None]) -> None:
    """Copy files of `place` into a local folder, several at once.

    Args:
        place: where they are.
        files: as `list_files` gave them.
        folder: where their copies go; made if it does not exist.
        progress: told the share of the bytes that is there, at most a hundred times.

    Raises:
        OSError, pyarrow.ArrowException: a file cannot be read or written, or has another size than was listed.
    """

    def fetch(file: RemoteFile) -> int:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        source = place.filesystem.open_input_stream(place.join(file.name), compression=None)
        with source, target.open("wb") as copy:
            while block := source.read(_BLOCK_BYTES):
                written += copy.write(block)
        if written != file.size:
            raise OSError(f"{file.name} has {written:,} bytes, but was listed with {file.size:,}: it has just changed")
        return written

    total, done, told = sum(file.size for file in files), 0, 0
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        for size in pool.map(fetch, files):
            done += size
            if total and 100 * done // total > told:
                told = 100 * done // total
                progress(done / total)
