"""One run of the LM over a text for several readers, each of one site."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from saemake.text.shards import Contexts


class SharedCaptures:
    """Hands each batch of contexts with its activations [B, L, D] to every reader. The LM runs when
    the first reader asks for a batch; what others have not asked for yet is kept until they do.

    `capture` gives the activations after each of some layers, which are in order.
    """

    def __init__(
        self,
        contexts: Iterator[Contexts],
        capture: Callable[[Contexts, Sequence[int]], Mapping[int, Tensor]],
    ) -> None:
        self.contexts, self.capture = contexts, capture
        self.readers: list[Reader] = []

    def reader(self, site: Any) -> "Reader":
        """A reader of a layer, from the next batch on."""
        self.readers.append(Reader(self, site))
        return self.readers[-1]

    def run(self) -> None:
        """Run the LM on the next batch. Raises StopIteration at the text's end."""
        contexts = next(self.contexts)
        hidden = self.capture(contexts, list(dict.fromkeys(reader.site for reader in self.readers)))
        for reader in self.readers:
            reader.waiting.append((contexts, hidden[reader.site]))


class Reader(Iterator[tuple[Contexts, Tensor]]):
    """The batches of one layer, in the text's order."""

    def __init__(self, captures: SharedCaptures, site: Any) -> None:
        self.captures, self.site = captures, site
        self.waiting = deque[tuple[Contexts, Tensor]]()

    def __next__(self) -> tuple[Contexts, Tensor]:
        if not self.waiting:
            self.captures.run()
        return self.waiting.popleft()

    def close(self) -> None:
        """Read no more: nothing is kept for it."""
        self.captures.readers.remove(self)
        self.waiting.clear()
