"""A Hub on this machine, in memory, for tests: what huggingface_hub and datasets ask of the real
one, over HTTP, with its errors, its redirects to a CDN, its permissions, and faults on demand.

    with LocalHub() as hub:
        hub.commit("model", "owner/name", {"config.json": b"{}"})
        subprocess.run(..., env={**os.environ, **hub.environment(tmp_path)})
"""

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from unittest import mock
from urllib.parse import parse_qs, quote, unquote, urlsplit

import datasets
from huggingface_hub import constants as hub_constants

# As the .gitattributes that the Hub puts into a new repository, in its main points.
LFS_SUFFIXES = {".bin", ".gz", ".parquet", ".pt", ".safetensors", ".zst"}
LFS_BYTES = 10 * 2**20
GIT_ATTRIBUTES = "".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(LFS_SUFFIXES)
).encode()
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Request:
    """What a client asks: its path is still quoted and without the query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What the server says."""

    body: bytes = b""
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """An answer that is an error, with the Hub's own code for it where it has one."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        named = {} if code is None else {"X-Error-Code": code}
        self.answer = Answer(
            json.dumps({"error": message}).encode(), status, {**named, "X-Error-Message": message}
        )


@dataclass(frozen=True)
class User:
    """Who a token is of: the namespaces that they write to, and the gated or private repositories
    of others that they read."""

    name: str
    may_write: Set[str]
    may_read: Set[str]


@dataclass(frozen=True)
class Blob:
    """A file's content as git and LFS name it."""

    path: str
    content: bytes

    @property
    def lfs(self) -> bool:
        return _is_lfs(self.path, len(self.content))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {len(self.content)}\n"
        ).encode()

    @property
    def git_id(self) -> str:
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        """What the client compares: git's id, or of an LFS file its sha256."""
        return self.sha256 if self.lfs else self.git_id

    def described(self) -> dict[str, Any]:
        """As an entry of a listing."""
        entry = {"type": "file", "path": self.path, "size": len(self.content), "oid": self.git_id}
        if not self.lfs:
            return entry
        pointer_size = len(self.pointer)
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": pointer_size}
        return {**entry, "lfs": lfs}


def _is_lfs(path: str, size: int) -> bool:
    return Path(path).suffix in LFS_SUFFIXES or size > LFS_BYTES


@dataclass
class Repository:
    """Its commits by their ids, each with all files; its LFS objects by their sha256; `main` is the
    newest commit."""

    kind: str
    id: str
    commits: dict[str, Files] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    main: str = ""
    gated: bool = False
    private: bool = False

    @property
    def url_path(self) -> str:
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    def resolve(self, revision: str) -> str:
        """The commit that a revision names."""
        commit = self.main if revision in ("main", "refs/heads/main") else revision
        if commit not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def blobs(self, revision: str) -> dict[str, Blob]:
        files = self.commits[self.resolve(revision)]
        return {path: Blob(path, content) for path, content in files.items()}

    def commit(self, files: Files, message: str) -> str:
        """A new commit on main with exactly these files; its id."""
        listed = [(path, hashlib.sha256(files[path]).hexdigest()) for path in sorted(files)]
        said = json.dumps([self.kind, self.id, self.main, message, listed])
        self.main = hashlib.sha1(said.encode()).hexdigest()
        self.commits[self.main] = dict(files)
        blobs = [Blob(path, content) for path, content in files.items()]
        self.objects.update({blob.sha256: blob.content for blob in blobs if blob.lfs})
        return self.main


@dataclass
class Fault:
    """What goes wrong with requests whose path has `path_part`, so many times; None: always."""

    path_part: str
    times: int | None
    method: str | None = None
    # Either the body ends after so many bytes,
    after_bytes: int | None = None
    reset: bool = False
    # or the answer is this.
    status: int = 0
    retry_after: int | None = None

    def matches(self, request_method: str, path: str) -> bool:
        left = self.times is None or self.times > 0
        return left and self.path_part in path and self.method in (None, request_method)

    def use(self) -> None:
        if self.times is not None:
            self.times -= 1


class LocalHub:
    """A Hub that lives as long as its `with` block, served by threads on a free port."""

    endpoint: str

    def __init__(self) -> None:
        # Method, path and range of each.
        self.requests: list[tuple[str, str, str | None]] = []
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._users: dict[str, User] = {}
        self.faults: list[Fault] = []
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._server = _Server(self)
        port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{port}"
        # Another origin, as the real CDN is: the client must not send it the token.
        self._cdn = f"http://localhost:{port}/cdn"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be there no more."""
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to take this Hub for the real one, without a token; its caches are
        under `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @contextlib.contextmanager
    def inside(self, home: Path) -> Iterator[None]:
        """Have this very process take it for the real one. Its client has read its environment
        already, when it was imported."""
        with (
            mock.patch.dict(os.environ, self.environment(home)),
            mock.patch.object(hub_constants, "ENDPOINT", self.endpoint),
            mock.patch.object(
                hub_constants,
                "HUGGINGFACE_CO_URL_TEMPLATE",
                self.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            ),
            mock.patch.object(hub_constants, "HF_HUB_CACHE", str(home / "hub")),
            mock.patch.object(hub_constants, "HF_TOKEN_PATH", str(home / "token")),
            mock.patch.object(hub_constants, "HF_HUB_OFFLINE", False),
            mock.patch.object(hub_constants, "HF_HUB_DISABLE_XET", True),
            mock.patch.object(datasets.config, "HF_ENDPOINT", self.endpoint),
            mock.patch.object(datasets.config, "HF_HUB_OFFLINE", False),
            mock.patch.object(datasets.config, "HF_DATASETS_CACHE", home / "datasets"),
        ):
            yield

    def commit(self, kind: str, repo_id: str, files: Files, message: str = "") -> str:
        """Add or replace files of a "model" or "dataset", which is made where it is not there yet;
        the new commit's id. Earlier commits stay reachable by theirs."""
        with self._lock:
            repository = self._repository(kind, repo_id)
            return repository.commit(
                {**repository.commits.get(repository.main, {}), **files}, message
            )

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """All files of a revision."""
        with self._lock:
            repository = self._repositories[kind, repo_id]
            return dict(repository.commits[repository.resolve(revision)])

    def commits(self, kind: str, repo_id: str) -> list[str]:
        """The ids of all commits, oldest first; none where there is no such repository."""
        with self._lock:
            repository = self._repositories.get((kind, repo_id))
            return list(repository.commits) if repository else []

    def gate(self, kind: str, repo_id: str) -> None:
        """Have its files read only by users who may (see `grant`); its listing is for all."""
        self._repository(kind, repo_id).gated = True

    def hide(self, kind: str, repo_id: str) -> None:
        """Make it private: for all but users who may read it, it is not there."""
        self._repository(kind, repo_id).private = True

    def grant(
        self,
        token: str,
        user: str,
        may_write: Set[str] = frozenset(),
        may_read: Set[str] = frozenset(),
    ) -> None:
        """Have a token of a user, who may write to these namespaces ("owner") and read these gated
        or private repositories ("owner/name")."""
        self._users[token] = User(user, frozenset(may_write), frozenset(may_read))

    def drop(
        self,
        path_part: str,
        after_bytes: int,
        times: int | None = 1,
        *,
        method: str | None = None,
        reset: bool = False,
    ) -> None:
        """Close the connection in the middle of the body (of a PUT or POST the client's, else the
        server's) where that has more than `after_bytes`; `reset` closes it with an RST."""
        self.faults.append(Fault(path_part, times, method, after_bytes, reset))

    def answer(
        self,
        path_part: str,
        status: int,
        times: int | None = 1,
        *,
        method: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """Answer with an error, as a server does that is busy (503) or asked too often (429)."""
        self.faults.append(Fault(path_part, times, method, None, False, status, retry_after))

    def mend(self) -> None:
        """No more faults."""
        self.faults.clear()

    def fault(self, method: str, path: str, body_bytes: int | None = None) -> Fault | None:
        """The fault that befalls a request: with `body_bytes`, a drop in a body of that many, else
        an answer. Used up by that."""
        with self._lock:
            for fault in self.faults:
                if not fault.matches(method, path):
                    continue
                if body_bytes is None:
                    due = fault.after_bytes is None
                else:
                    due = fault.after_bytes is not None and body_bytes > fault.after_bytes
                if due:
                    fault.use()
                    return fault
        return None

    def respond(self, request: Request) -> Answer:
        """What the Hub says to a request."""
        for method, pattern, handler in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and request.method in method.split():
                arguments = {name: unquote(text) for name, text in found.groupdict("").items()}
                if "kind" in arguments:
                    arguments["kind"] = arguments["kind"] or "model"
                try:
                    with self._lock:
                        return handler(self, request, **arguments)
                except RefusedError as refused:
                    return refused.answer
        return RefusedError(404, f"{request.method} {request.path}: no such page").answer

    def _repository(self, kind: str, repo_id: str) -> Repository:
        if kind not in ("model", "dataset") or repo_id.count("/") != 1:
            raise ValueError(f"no repository: {kind} {repo_id}")
        return self._repositories.setdefault((kind, repo_id), Repository(kind, repo_id))

    # Who asks, and what they may.

    def _user(self, request: Request) -> User | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self._users:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return self._users.get(token)

    def _readable(self, request: Request, kind: str, repo_id: str, content: bool) -> Repository:
        """A repository whose listing, or content, the request may have."""
        user = self._user(request)
        repository = self._repositories.get((kind, repo_id))
        allowed = user is not None and (
            repo_id in user.may_read or repo_id.split("/")[0] in user.may_write
        )
        if repository is None or (repository.private and not allowed):
            # The real one does not say to strangers what is there.
            raise RefusedError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if content and repository.gated and not allowed:
            raise RefusedError(
                401 if user is None else 403, f"Access to {repo_id} is restricted.", "GatedRepo"
            )
        return repository

    def _check_writer(self, request: Request, namespace: str) -> None:
        user = self._user(request)
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if namespace not in user.may_write:
            raise RefusedError(403, f"you don't have the rights to write to {namespace}")

    def _writable(self, request: Request, kind: str, repo_id: str) -> Repository:
        repository = self._readable(request, kind, repo_id, content=True)
        self._check_writer(request, repo_id.split("/")[0])
        return repository

    # Reading.

    def _info(self, request: Request, kind: str, repo: str, revision: str = "") -> Answer:
        repository = self._readable(request, kind, repo, content=False)
        commit = repository.resolve(revision or "main")
        return _json(
            {
                "id": repo,
                "author": repo.split("/")[0],
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in repository.commits[commit]],
            }
        )

    def _refs(self, request: Request, kind: str, repo: str) -> Answer:
        repository = self._readable(request, kind, repo, content=False)
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.main}
        return _json({"branches": [main], "tags": [], "converts": [], "pullRequests": []})

    def _auth_check(self, request: Request, kind: str, repo: str) -> Answer:
        self._readable(request, kind, repo, content=True)
        return Answer()

    def _tree(
        self, request: Request, kind: str, repo: str, revision: str, folder: str = ""
    ) -> Answer:
        repository = self._readable(request, kind, repo, content=False)
        entries = _entries(repository.blobs(revision))
        prefix = f"{folder}/" if folder else ""
        if folder and folder not in entries:
            raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
        below = [entry for path, entry in entries.items() if path.startswith(prefix)]
        if request.query.get("recursive", ["false"])[0].lower() != "true":
            below = [entry for entry in below if "/" not in entry["path"].removeprefix(prefix)]
        return _json(below)

    def _paths_info(self, request: Request, kind: str, repo: str, revision: str) -> Answer:
        repository = self._readable(request, kind, repo, content=False)
        entries = _entries(repository.blobs(revision))
        asked = parse_qs(request.body.decode())["paths"]
        return _json([entries[path] for path in asked if path in entries])

    def _resolve(self, request: Request, kind: str, repo: str, revision: str, path: str) -> Answer:
        repository = self._readable(request, kind, repo, content=True)
        commit = repository.resolve(revision)
        blob = repository.blobs(commit).get(path)
        headers = {"X-Repo-Commit": commit}
        if blob is None:
            refusal = RefusedError(404, "Entry not found", "EntryNotFound").answer
            return Answer(refusal.body, refusal.status, {**refusal.headers, **headers})
        headers["ETag"] = f'"{blob.etag}"'
        if not blob.lfs:
            return _content(request, blob.content, headers)
        redirect = {
            "Location": f"{self._cdn}/{repository.url_path}/{blob.sha256}/{quote(path)}",
            "X-Linked-ETag": f'"{blob.sha256}"',
            "X-Linked-Size": str(len(blob.content)),
        }
        return Answer(b"", HTTPStatus.FOUND, {**headers, **redirect})

    def _cdn_content(self, request: Request, kind: str, repo: str, oid: str) -> Answer:
        _check_no_token(request)
        content = self._repositories[kind, repo].objects[oid]
        return _content(request, content, {"ETag": f'"{oid}"'})

    def _whoami(self, request: Request) -> Answer:
        user = self._user(request)
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name} for name in sorted(user.may_write - {user.name})]
        role = "write" if user.may_write else "read"
        token = {"displayName": "test", "role": role}
        return _json(
            {
                "type": "user",
                "name": user.name,
                "orgs": orgs,
                "auth": {"type": "access_token", "accessToken": token},
            }
        )

    # Writing.

    def _create(self, request: Request) -> Answer:
        asked = request.json()
        kind = asked.get("type", "model")
        namespace = asked["organization"] or getattr(self._user(request), "name", "")
        self._check_writer(request, namespace)
        repo_id = f"{namespace}/{asked['name']}"
        url = {"url": f"{self.endpoint}/{Repository(kind, repo_id).url_path}"}
        if (kind, repo_id) in self._repositories:
            return Answer(json.dumps({"error": "exists", **url}).encode(), HTTPStatus.CONFLICT)
        made = self._repository(kind, repo_id)
        made.private = asked.get("visibility") == "private"
        made.commit({".gitattributes": GIT_ATTRIBUTES}, "initial commit")
        return _json(url)

    def _preupload(self, request: Request, kind: str, repo: str, revision: str) -> Answer:
        repository = self._writable(request, kind, repo)
        blobs = repository.blobs(revision)
        files = []
        for asked in request.json()["files"]:
            mode = "lfs" if _is_lfs(asked["path"], asked["size"]) else "regular"
            blob = blobs.get(asked["path"])
            oid = blob.etag if blob else None
            files.append(
                {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        return _json({"files": files})

    def _validate_yaml(self, request: Request) -> Answer:
        return _json({"errors": [], "warnings": []})

    def _lfs_batch(self, request: Request, kind: str, repo: str) -> Answer:
        repository = self._writable(request, kind, repo)
        objects = []
        for asked in request.json()["objects"]:
            oid = asked["oid"]
            page = repository.url_path
            actions = {
                "upload": {"href": f"{self._cdn}/upload/{page}/{oid}"},
                "verify": {"href": f"{self.endpoint}/{page}.git/info/lfs/objects/verify"},
            }
            known = oid in repository.objects
            objects.append(asked if known else {**asked, "actions": actions})
        return _json({"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request: Request, kind: str, repo: str, oid: str) -> Answer:
        _check_no_token(request)
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise RefusedError(400, "the content is not of that sha256")
        self._repositories[kind, repo].objects[oid] = request.body
        return Answer()

    def _lfs_verify(self, request: Request, kind: str, repo: str) -> Answer:
        repository, asked = self._writable(request, kind, repo), request.json()
        if len(repository.objects.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, "no such object")
        return Answer()

    def _commit(self, request: Request, kind: str, repo: str, revision: str) -> Answer:
        repository = self._writable(request, kind, repo)
        if revision != "main":
            raise RefusedError(404, f"no branch {revision}", "RevisionNotFound")
        operations = [json.loads(line) for line in request.body.splitlines()]
        header = next(one["value"] for one in operations if one["key"] == "header")
        if header.get("parentCommit", repository.main) != repository.main:
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[repository.main])
        for operation in operations:
            _apply(operation["key"], operation["value"], files, repository.objects)
        commit = repository.commit(files, header["summary"])
        url = f"{self.endpoint}/{repository.url_path}/commit/{commit}"
        return _json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content).encode(), headers={"Content-Type": "application/json"})


def _apply(
    key: str, value: Mapping[str, Any], files: dict[str, bytes], objects: Mapping[str, bytes]
) -> None:
    """One operation of a commit, done to the files."""
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise RefusedError(400, f"LFS object {value['oid']} was not uploaded")
        files[value["path"]] = objects[value["oid"]]
    elif key == "deletedFile":
        if files.pop(value["path"], None) is None:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
    elif key == "deletedFolder":
        folder = value["path"].rstrip("/") + "/"
        for path in [path for path in files if path.startswith(folder)]:
            del files[path]
    elif key != "header":
        raise RefusedError(400, f"unknown operation {key}")


def _entries(blobs: Mapping[str, Blob]) -> dict[str, dict[str, Any]]:
    """The entries of a listing by path: files, and the folders that they lie in."""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in blobs.items():
        for parent in list(Path(path).parents)[-2::-1]:
            name = parent.as_posix()
            oid = hashlib.sha1(name.encode()).hexdigest()
            entries.setdefault(name, {"type": "directory", "path": name, "size": 0, "oid": oid})
        entries[path] = blob.described()
    return entries


def _content(request: Request, content: bytes, headers: Mapping[str, str]) -> Answer:
    """A file, or the range of it that is asked for."""
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return Answer(content, headers=headers)
    size = len(content)
    if asked[1]:
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
    else:
        first, last = max(size - int(asked[2]), 0), size - 1
    if first >= size:
        return Answer(b"", 416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Answer(content[first : last + 1], HTTPStatus.PARTIAL_CONTENT, headers)


def _check_no_token(request: Request) -> None:
    # A signed URL of the real CDN is refused with a second kind of authorisation as well.
    if "Authorization" in request.headers:
        raise RefusedError(400, "Only one auth mechanism allowed")


API = r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>dataset)s/)?(?P<repo>[^/]+/[^/]+)"
OID = r"/(?P<oid>[0-9a-f]{64})"
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", API, LocalHub._info),
    ("GET", API + r"/revision/(?P<revision>[^/]+)", LocalHub._info),
    ("GET", API + r"/refs", LocalHub._refs),
    ("GET", API + r"/auth-check", LocalHub._auth_check),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", LocalHub._tree),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", LocalHub._paths_info),
    ("GET HEAD", PAGE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", LocalHub._resolve),
    ("GET", r"/cdn" + PAGE + OID + r"/.+", LocalHub._cdn_content),
    ("GET", r"/api/whoami-v2", LocalHub._whoami),
    ("POST", r"/api/repos/create", LocalHub._create),
    ("POST", r"/api/validate-yaml", LocalHub._validate_yaml),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", LocalHub._preupload),
    ("POST", PAGE + r"\.git/info/lfs/objects/batch", LocalHub._lfs_batch),
    ("PUT", r"/cdn/upload" + PAGE + OID, LocalHub._lfs_upload),
    ("POST", PAGE + r"\.git/info/lfs/objects/verify", LocalHub._lfs_verify),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", LocalHub._commit),
]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LocalHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed in the middle are part of the tests; all else is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        hub, parts = self.server.hub, urlsplit(self.path)
        hub.requests.append((self.command, parts.path, self.headers.get("Range")))
        length = int(self.headers.get("Content-Length") or 0)
        dropped = hub.fault(self.command, parts.path, length) if length else None
        if dropped:
            self.rfile.read(dropped.after_bytes)
            self._hang_up(dropped)
            return
        body = self.rfile.read(length)
        busy = hub.fault(self.command, parts.path)
        if busy:
            later = {} if busy.retry_after is None else {"Retry-After": str(busy.retry_after)}
            said = json.dumps({"error": http.client.responses.get(busy.status, "unknown")})
            self._send(Answer(said.encode(), busy.status, later))
            return
        asked = Request(self.command, parts.path, parse_qs(parts.query), self.headers, body)
        self._send(hub.respond(asked))

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        path = urlsplit(self.path).path
        sends = self.command == "GET" and answer.status in (200, 206)
        dropped = self.server.hub.fault("GET", path, len(answer.body)) if sends else None
        if dropped:
            self.wfile.write(answer.body[: dropped.after_bytes])
            self._hang_up(dropped)
        else:
            self.wfile.write(answer.body)

    def _hang_up(self, fault: Fault) -> None:
        self.close_connection = True
        self.wfile.flush()
        if fault.reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""
