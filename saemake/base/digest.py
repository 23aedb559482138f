"""Hashes of plain values. They name recipes and entries of the store."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """sha256 of `value` as JSON with sorted keys, in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
