"""Cloud URIs such as s3://BUCKET/FOLDER: listing, fetching and sending files."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from engine.atomic import replacing
from engine.data.remote.patience import answered
from engine.errors import InputError

# Each read or write of an object store may be a request of its own.
_BLOCK_BYTES = 16 << 20
# In silence, Google's client tries for 15 minutes unless told otherwise, and Amazon's ten times, for 100 seconds.
_RETRY_SECONDS = 20
_ATTEMPTS = 4

ANSWER_SECONDS = 30.0
"""How long a storage may take to answer a question, such as what is at an address."""

_BLOCK_SECONDS = 120.0
_LISTING_SECONDS = 900.0
_SECRETS = {"client_secret", "sig", "sas_token", "access_token", "secret_key"}

_REMEDIES = {
    "s3": "check the bucket's name and region, the network, and this machine's credentials (a role, ~/.aws, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)",
    "gs": "check the bucket's name, the network, and this machine's credentials (a service account, or "
    "GOOGLE_APPLICATION_CREDENTIALS; gs://anonymous@BUCKET/... for public ones)",
    "abfs": "check the account and container, the network, and this machine's credentials (a managed identity, or "
    "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET)",
    "hdfs": "check the name node, and that this machine has libhdfs (HADOOP_HOME, JAVA_HOME, CLASSPATH)",
    "file": "give the path of the folder instead, without file://, and check that it exists and may be read and "
    "written",
}
_SAME_AS = {"gcs": "gs", "abfss": "abfs", "viewfs": "hdfs"}


class FileTooLargeError(OSError):
    """A file has more bytes than are read of it."""


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
        return _info(self, self.join(name)).type == FileType.File

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all files and folders in a folder, in no order; nothing where there is no folder."""
        selector = FileSelector(self.join(folder), allow_not_found=True)
        found = answered(lambda: self.filesystem.get_file_info(selector), _LISTING_SECONDS)
        return [info.base_name for info in found]

    def read(self, name: str, limit: int) -> bytes:
        """Return what is in a file.

        Raises:
            FileTooLargeError: it has more than `limit` bytes; no more than a block beyond them is read.
        """
        content = bytearray()
        for block in self.blocks(name):
            content += block
            if len(content) > limit:
                raise FileTooLargeError(f"{name} has more than {limit:,} bytes, and no more are read of it")
        return bytes(content)

    def blocks(self, name: str, stop: threading.Event | None = None) -> Iterator[bytes]:
        """Yield what is in a file, piece by piece.

        Args:
            name: of the file.
            stop: set by others when no more is wanted.
        """
        # Left to itself, pyarrow would unpack what is called .gz.
        source = answered(
            lambda: self.filesystem.open_input_stream(self.join(name), compression=None), ANSWER_SECONDS, stop
        )
        while block := answered(lambda: source.read(_BLOCK_BYTES), _BLOCK_SECONDS, stop):
            yield block
        source.close()

    def send(self, source: Path, name: str) -> None:
        """Copy a local file here; where files can be renamed, it appears whole or not at all."""
        if isinstance(self.filesystem, LocalFileSystem):
            with replacing(Path(self.join(name))) as aside:
                shutil.copyfile(source, aside)
            return
        # No folder is made: object stores have none, and some would make a bucket of a wrong name.
        stream = answered(lambda: self.filesystem.open_output_stream(self.join(name), compression=None), ANSWER_SECONDS)
        with source.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                answered(functools.partial(stream.write, block), _BLOCK_SECONDS)
        # Blocks may still be under way.
        answered(stream.close, _LISTING_SECONDS)

    def copy(self, source: str, name: str) -> None:
        """Copy a file that is here already, without its bytes leaving the place."""
        if isinstance(self.filesystem, LocalFileSystem):
            Path(self.join(name)).parent.mkdir(parents=True, exist_ok=True)
        answered(lambda: self.filesystem.copy_file(self.join(source), self.join(name)), _LISTING_SECONDS)

    def remove_file(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.is_file(name):
            answered(lambda: self.filesystem.delete_file(self.join(name)), ANSWER_SECONDS)

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            answered(lambda: self.filesystem.delete_dir(self.join(name)), _LISTING_SECONDS)


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
    if not is_uri(uri):
        return "check that the folder exists on this machine and may be read and written"
    scheme = uri.partition("://")[0].lower()
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
    filesystem, path = answered(lambda: FileSystem.from_uri(uri), ANSWER_SECONDS)
    return Place(_impatient(filesystem), path.rstrip("/") or path)


def _impatient(filesystem: FileSystem) -> FileSystem:
    """Return the same file system, with fewer attempts where it is Amazon's: a URI cannot say so."""
    if filesystem.type_name != "s3":
        return filesystem
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    _, (settings, *_) = filesystem.__reduce__()
    return S3FileSystem(**settings, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS))


def _info(place: Place, path: str) -> FileInfo:
    found: FileInfo = answered(lambda: place.filesystem.get_file_info(path), ANSWER_SECONDS)
    return found


def list_files(place: Place) -> list[RemoteFile]:
    """Return all files below a folder in the order of their names, without hidden ones.

    Raises:
        OSError, pyarrow.ArrowException: there is no such folder, or it cannot be read.
    """
    info = _info(place, place.path)
    if info.type == FileType.NotFound:
        raise FileNotFoundError("there is nothing at this address")
    if info.type == FileType.File:
        raise NotADirectoryError("this is one file, expected the folder that holds it")
    found: dict[str, RemoteFile] = {}
    selector = FileSelector(place.path, recursive=True)
    for info in answered(lambda: place.filesystem.get_file_info(selector), _LISTING_SECONDS):
        name = _name_below(place.path, info.path)
        if info.type == FileType.File and name is not None:
            if info.size is None:
                raise OSError(f"{name} is listed without its size")
            if name in found:
                raise OSError(f"two files would be called {name} in a folder; rename one of them")
            found[name] = RemoteFile(name, info.size, info.mtime_ns or 0)
    return sorted(found.values(), key=lambda file: file.name)


def _name_below(folder: str, path: str) -> str | None:
    """Return the name that a listed file has below its folder; None for hidden files and what lies elsewhere.

    Names come from others: one with ".." in it would lead out of the folder that the files are copied into.
    """
    start = f"{folder.rstrip('/')}/"
    parts = [part for part in path.removeprefix(start).split("/") if part]
    if not path.startswith(start) or not parts or any(part.startswith(".") or "\0" in part for part in parts):
        return None
    return "/".join(parts)
