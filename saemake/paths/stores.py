"""The project's store, with the store behind it that the config says others share."""

from saemake.base.remote import Remote, remote
from saemake.base.store import Store
from saemake.config.config import Config
from saemake.paths.names import STORE


def shared_store(config: Config) -> Remote | None:
    """The shared store of the config. Opens no connection."""
    said = config.store
    return None if said.remote is None else remote(said.remote, said.push, STORE)


def store(config: Config, kind: str) -> Store:
    """The entries of one kind."""
    return Store(STORE, kind, shared_store(config))
