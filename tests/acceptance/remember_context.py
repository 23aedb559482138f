"""Run with the Python that has rocrate-validator: puts RO-Crate 1.1's context, as the package
rocrate brings it, into the validator's cache, so that it validates without a network."""

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class FromPackage(HTTPAdapter):
    """Answers every request with the context."""

    def send(self, request: Any, *_: Any, **__: Any) -> Any:
        spec = importlib.util.find_spec("rocrate")
        assert spec is not None
        assert spec.origin is not None
        content = Path(spec.origin).with_name("data").joinpath("ro-crate.jsonld").read_bytes()
        assert f'"@id": "{CONTEXT}"'.encode() in content
        answer = HTTPResponse(
            body=io.BytesIO(content),
            headers={"Content-Type": "application/ld+json"},
            status=200,
            preload_content=False,
        )
        return self.build_response(request, answer)


session = CachedSession(
    cache_name=sys.argv[1], backend="sqlite", expire_after=-1, allowable_methods=("GET",)
)
session.mount("https://", FromPackage())
assert session.get(CONTEXT).ok
