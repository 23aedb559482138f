"""One run of the LM over a text for several readers, each of one site or of several."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from saemake.text.shards import Contexts


class SharedCaptures:
    """Hands each batch of contexts with its activations [B, L, D] to every reader. The LM runs when
    the first reader asks for a batch; what others have not asked for yet is kept until they do.

    `capture` gives the activations at each of some sites.
    """

    def __init__(
        self,
        contexts: Iterator[Contexts],
        capture: Callable[[Contexts, Sequence[Any]], Mapping[Any, Tensor]],
    ) -> None:
        self.contexts, self.capture = contexts, capture
        self.readers: list[Reader] = []

    def reader(self, *sites: Hashable) -> "Reader":
        """A reader of one or several sites, from the next batch on."""
        self.readers.append(Reader(self, sites))
        return self.readers[-1]

    def run(self) -> None:
        """Run the LM on the next batch. Raises StopIteration at the text's end."""
        contexts = next(self.contexts)
        wanted = dict.fromkeys(site for reader in self.readers for site in reader.sites)
        hidden = self.capture(contexts, list(wanted))
        for reader in self.readers:
            reader.waiting.append((contexts, *(hidden[site] for site in reader.sites)))


class Reader(Iterator[tuple[Contexts, *tuple[Tensor, ...]]]):
    """The batches of contexts in the text's order, each with the activations at every site."""

    def __init__(self, captures: SharedCaptures, sites: Sequence[Hashable]) -> None:
        self.captures, self.sites = captures, sites
        self.waiting = deque[tuple[Contexts, *tuple[Tensor, ...]]]()

    def __next__(self) -> tuple[Contexts, *tuple[Tensor, ...]]:
        if not self.waiting:
            self.captures.run()
        return self.waiting.popleft()

    def close(self) -> None:
        """Read no more: nothing is kept for it."""
        self.captures.readers.remove(self)
        self.waiting.clear()
