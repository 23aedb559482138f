"""The bytes of a shared store, through fsspec: s3://, hf://, file://. Every call has a deadline,
and every failure is a few words without credentials."""

import contextlib
import importlib.util
import logging
import re
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from saemake.base.errors import SaemakeError, first_line

PROTOCOLS = ("s3", "hf", "file")
REPOSITORY = re.compile(
    r"hf://(datasets/)?(?!(datasets|spaces|models|buckets)/)[\w.-]+/[\w.-]+(@[\w.-]+)?(/.*)?"
)
# Until a store has answered, and for each of its files beside the time for its bytes.
ANSWER_S = 10.0
SLOWEST_BYTES_PER_S = 2**18
BLOCK_BYTES = 2**24
# Tries of a commit to the Hub while others commit too.
COMMITS = 3
Answer = TypeVar("Answer")
# What is uploaded: its path below the store's root, and its bytes or the file that has them.
Upload = tuple[str, bytes | Path]


class RemoteError(Exception):
    """Why a shared store cannot be used now, in a few words."""


def check_url(url: str) -> None:
    """Raise ValueError where a URL cannot be that of a shared store. The text shows no part of a
    URL that may be a secret."""
    protocol, separator, _ = url.partition("://")
    if not separator or protocol not in PROTOCOLS:
        known = ", ".join(f"{each}://" for each in PROTOCOLS)
        raise ValueError(f"no URL of a shared store; it must begin with one of {known}")
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "a URL with a name, a password or a query is refused, since a config is no place for"
            " credentials: remove them, and give credentials in the environment"
            " (docs/shared-store.md)"
        )
    if ".." in parts.path.split("/"):
        raise ValueError("'..' in its path is refused: write the path out")
    if protocol == "file" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("write a folder as file:///absolute/path")
    if protocol == "s3" and not parts.netloc:
        raise ValueError("the bucket is missing: s3://bucket/prefix")
    if protocol == "hf" and not REPOSITORY.fullmatch(url):
        raise ValueError("write a repository as hf://datasets/owner/name")


def check_installed(url: str) -> None:
    """Raise SaemakeError where the package is missing that reads the store."""
    if url.startswith("s3://") and importlib.util.find_spec("s3fs") is None:
        raise SaemakeError(
            "config key 'store.remote': s3:// needs the package s3fs: make s3 (or pip install -r"
            " envs/s3.txt)"
        )


class RemoteFiles:
    """The files under a URL. Every method raises RemoteError where the store fails."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opened: Any = None

    def folder(self, path: str) -> dict[str, int]:
        """The names and sizes of the files in a folder; empty where there is no such folder."""

        def listed(files: Any) -> dict[str, int]:
            files.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                return {
                    each["name"].rsplit("/", 1)[-1]: int(each["size"] or 0)
                    for each in files.ls(self._place(path), detail=True)
                    if each["type"] == "file"
                }
            return {}

        return self._within(ANSWER_S, listed)

    def matching(self, pattern: str) -> list[str]:
        """The paths below the root that match a pattern with `*`, sorted."""

        def found(files: Any) -> list[str]:
            files.invalidate_cache()
            root = len(self._place("").rstrip("/")) + 1
            return sorted(path[root:] for path in files.glob(self._place(pattern)))

        return self._within(60 + ANSWER_S, found)

    def check_root(self) -> None:
        """Raise RemoteError where there is no such bucket, repository or folder."""

        def check(files: Any) -> None:
            if self.url.startswith("s3://"):
                files.call_s3("head_bucket", Bucket=urlsplit(self.url).netloc)
            elif self.url.startswith("hf://"):
                files.resolve_path(self._place("").rstrip("/"))
            elif not Path(self._place("")).is_dir():
                raise FileNotFoundError("no such folder")

        self._within(ANSWER_S, check)

    def read(self, path: str, size: int) -> bytes:
        """A small file, at most `size` bytes of it."""
        return b"".join(self.blocks(path, size))

    def blocks(self, path: str, size: int) -> Iterator[bytes]:
        """The first `size` bytes of a file, in blocks. Fewer where the file ends before."""
        opened = self._within(
            ANSWER_S, lambda files: files.open(self._place(path), "rb", block_size=BLOCK_BYTES)
        )
        with contextlib.closing(opened):
            while size > 0:
                wanted = min(size, BLOCK_BYTES)
                block = self._within(_seconds(wanted), partial(_read, opened, wanted))
                if not block:
                    return
                size -= len(block)
                yield block

    def upload(self, files: Sequence[Upload], about: str) -> None:
        """Write files, in this order; on the Hub all at once, in a commit with the message `about`.
        A file appears whole or not at all."""
        if self.url.startswith("hf://"):
            self._commit(files, about)
            return
        for path, content in files:
            self._within(_seconds(_size(content)), partial(self._put, path, content))

    def _put(self, path: str, content: bytes | Path, files: Any) -> None:
        place = self._place(path)
        local = self.url.startswith("file://")
        written = f"{place}.{uuid.uuid4().hex[:8]}" if local else place
        if local:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(content, bytes):
                files.pipe_file(written, content)
            else:
                files.put_file(str(content), written)
            if local:
                Path(written).replace(place)
        finally:
            if local:
                Path(written).unlink(missing_ok=True)

    def _commit(self, files: Sequence[Upload], about: str) -> None:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError

        def commit(remote: Any) -> None:
            root = remote.resolve_path(self._place("").rstrip("/"))
            for left in reversed(range(COMMITS)):
                operations = [
                    CommitOperationAdd("/".join(filter(None, [root.path_in_repo, path])), content)
                    for path, content in files
                ]
                try:
                    HfApi().create_commit(
                        root.repo_id,
                        operations,
                        commit_message=about,
                        repo_type=root.repo_type,
                        revision=root.revision,
                    )
                    return
                except HfHubHTTPError as error:
                    # Another commit came in between.
                    if error.response.status_code not in (409, 412) or not left:
                        raise

        self._within(_seconds(sum(_size(content) for _, content in files)), commit)

    def _place(self, path: str) -> str:
        """A path as the file system of the store wants it, without the protocol."""
        root = self.url.partition("://")[2]
        return f"{root}/{path}"

    def _filesystem(self) -> Any:
        """Opened when first used."""
        import fsspec

        if self._opened is None:
            protocol = self.url.partition("://")[0]
            options = _s3_options() if protocol == "s3" else {}
            self._opened = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
            if protocol == "s3":
                self._opened.retries = 2
        return self._opened

    def _within(self, seconds: float, work: Callable[[Any], Answer]) -> Answer:
        """What `work` returns of the file system. It runs in a thread of its own, since not all
        that a client waits for has a timeout. A thread that hangs ends with the process."""
        answer: list[Answer] = []
        fault: list[BaseException] = []

        def run() -> None:
            try:
                answer.append(work(self._filesystem()))
            except Exception as error:  # clients raise what they like
                fault.append(error)

        try:
            check_installed(self.url)
        except SaemakeError as error:
            raise RemoteError(str(error)) from None
        # Not in the thread, since imports take seconds on a busy machine.
        import fsspec

        fsspec.get_filesystem_class(self.url.partition("://")[0])
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        if answer:
            return answer[0]
        if fault:
            raise RemoteError(_words(fault[0])) from None
        raise RemoteError(f"no answer in {seconds:.0f} s")


def _s3_options() -> dict[str, Any]:
    """Credentials are botocore's own affair: the environment, ~/.aws, a role. Where there are none,
    a public bucket can still be read."""
    import botocore.session

    # It logs where it found credentials.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("aiobotocore").setLevel(logging.WARNING)
    known = botocore.session.Session().get_credentials() is not None
    timeouts = {"connect_timeout": 5, "read_timeout": ANSWER_S, "retries": {"max_attempts": 2}}
    return {"anon": not known, "config_kwargs": timeouts, "use_listings_cache": False}


def _read(opened: Any, size: int, _: Any) -> bytes:
    content: bytes = opened.read(size)
    return content


def _seconds(size: int) -> float:
    """How long so many bytes may take."""
    return 2 * ANSWER_S + size / SLOWEST_BYTES_PER_S


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _words(error: BaseException) -> str:
    """The reason of a failure. URLs lose their queries and passwords."""
    text = re.sub(r"//[^/\s@]*@", "//", re.sub(r"\?[^\s'\"]*", "", first_line(error)))
    text = textwrap.shorten(text, 160)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"no rights ({text})"
    if isinstance(error, FileNotFoundError):
        return f"does not exist, make it first ({text})"
    return f"cannot be used ({text})"
