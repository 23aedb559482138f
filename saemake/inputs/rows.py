"""The rows of a text, each a document or a conversation: read from a local folder or file, or from
the Hub, one after another. What cannot be read is one line that names the place.
"""

import glob
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from datasets import IterableDataset, load_dataset, load_dataset_builder
from datasets.download.streaming_download_manager import StreamingDownloadManager, xopen
from datasets.exceptions import DatasetNotFoundError
from datasets.packaged_modules.text.text import Text as TextFiles
from huggingface_hub import HfApi

from saemake.base.errors import SaemakeError, first_line
from saemake.base.store import Store
from saemake.config.config import Config, content_files
from saemake.config.sections import LINE, Text
from saemake.hub import FAILURES, every_row, patiently, pinned, reached
from saemake.paths.artifacts import FetchedFile, TokensFile
from saemake.recipes.kinds import TextRecipe

# The most characters of a document. A longer one is a text whose documents were never split.
LONGEST = 2**28
# Characters of a .txt file that are read at once.
CHUNK = 2**22
# Characters of a message of `datasets`, which may list all kinds of files that it knows.
LINE_AT_MOST = 300
# Bytes of a file that are looked at together for what is not UTF-8.
BLOCK = 2**20


class LeftOut:
    """Rows that gave no document: how many for each reason, and the first of these."""

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {}

    def add(self, reason: str, row: int) -> None:
        """Count a row; `reason` goes on after 'row 3 ...'."""
        counted = self.rows.setdefault(reason, [0, row])
        counted[0] += 1

    def __str__(self) -> str:
        """A clause for each reason; empty if nothing was left out."""
        return ", ".join(
            f"{count:,} {'rows' if count > 1 else 'row'} left out (row {first} {reason})"
            for reason, (count, first) in self.rows.items()
        )


class Source:
    """A text of the config, by its recipe's split, column and separator, at a revision."""

    def __init__(
        self, config: Config, name: str, recipe: TextRecipe, target: TokensFile, revisions: Store
    ) -> None:
        """Finds the commit that the text's revision names, so it may use the network. Raises
        SaemakeError if the Hub cannot be reached, or does not have it."""
        self.name, self.recipe, self.target = name, recipe, target
        self.text: Text = config.texts[name]
        self.place = self.text.hub or str(config.path_of(self.text))
        self.left_out = LeftOut()
        self.revision = self._resolve(revisions)

    def _resolve(self, revisions: Store) -> str | None:
        hub = self.text.hub
        if hub is None:
            return None

        def commit(revision: str) -> str:
            return patiently(lambda: HfApi().dataset_info(hub, revision=revision)).sha

        with self._reached():
            return pinned(revisions, "dataset", hub, self.text.revision, commit)

    def _reached(self) -> AbstractContextManager[None]:
        if self.text.hub is None:
            return nullcontext()
        otherwise = (
            f"where there is a network, type `saemake build {FetchedFile(self.target.model)}` or"
            f" `snakemake {self.target}`, then run the same command again"
        )
        return reached(
            f"dataset '{self.text.hub}'",
            f"datasets/{self.text.hub}",
            self.text.revision,
            otherwise,
            also_refused=(DatasetNotFoundError,),
        )

    def values(self, skip: int, shuffle_seed: int | None) -> Iterator[tuple[int, Any]]:
        """The number of each row after the first `skip`, and what is in the column. Null is left
        out. `shuffle_seed` changes the order of the text's files only, as in SAELens.

        Raises SaemakeError if the text cannot be read, or has no such column.
        """
        with self._reached():
            rows = self._opened()
            if shuffle_seed is not None:
                # With a buffer of one row and one file, only the order of the files changes.
                rows = rows.shuffle(seed=shuffle_seed, buffer_size=1, max_buffer_input_shards=1)
            for number, row in enumerate(self._read(rows.skip(skip), skip), start=skip):
                value = self._in_column(row)
                if value is None:
                    self.left_out.add("is null", number)
                else:
                    yield number, value

    def documents(self, skip: int, shuffle_seed: int | None) -> Iterator[tuple[int, str]]:
        """The same of a text of strings; empty ones are left out. Raises SaemakeError if a value is
        no string, or longer than LONGEST."""
        for number, value in self.values(skip, shuffle_seed):
            if not isinstance(value, str):
                raise SaemakeError(
                    f"{self}: row {number} has no text in column '{self.recipe.column}' but"
                    f" {_kind(value)}; set texts.{self.name}.column, or texts.{self.name}.chat for"
                    " conversations"
                )
            if not value:
                self.left_out.add("is empty", number)
            elif len(value) > LONGEST:
                raise SaemakeError(self._too_long(f"row {number} has {len(value):,} characters"))
            else:
                yield number, value

    def __str__(self) -> str:
        return f"text {self.place}"

    def _too_long(self, what: str) -> str:
        return (
            f"{self}: {what}, more than the most, {LONGEST:,}; split it into documents (of a .txt"
            f" file, texts.{self.name}.separator says where they end)"
        )

    def _in_column(self, row: dict[str, Any]) -> Any:
        if self.recipe.column not in row:
            raise SaemakeError(
                f"{self}: there is no column '{self.recipe.column}', only {', '.join(row)}; set"
                f" texts.{self.name}.column"
            )
        return row[self.recipe.column]

    def _opened(self) -> IterableDataset:
        try:
            if self.recipe.separator != LINE:
                return self._separated()
            return patiently(
                lambda: load_dataset(**self._arguments(), split=self.recipe.split, streaming=True),
                was_reached=True,
            )
        except (*FAILURES, DatasetNotFoundError):  # some are subclasses of FileNotFoundError
            raise
        except SaemakeError:
            raise
        except Exception as error:
            raise SaemakeError(self._refused(error)) from None

    def _arguments(self) -> dict[str, Any]:
        """What `datasets` finds the files by."""
        if self.text.file is not None:
            file = Path(self.place)
            return {
                "path": str(file.parent),
                "data_files": {"train": glob.escape(file.name)},
            }
        return {"path": self.place, "name": self.text.subset, "revision": self.revision}

    def _refused(self, error: Exception) -> str:
        """Of whatever `datasets` raises where it finds no files, or reads the first of them."""
        if isinstance(error, StopIteration | EOFError):
            return f"{self}: its file is empty, or ends before its end; fetch it anew"
        if not (isinstance(error, RuntimeError) and "script" in str(error)):
            words = str(error).partition("Example of usage")[0] or type(error).__name__
            way_out = f"; set texts.{self.name}.subset" if "onfig" in words else ""
            reason = textwrap.shorten(words, LINE_AT_MOST).removesuffix(".")
            return f"{self}, split '{self.recipe.split}': {reason}{way_out}"
        return (
            f"{self}: is read by a script, which saemake does not run; name data files instead"
            " (many datasets of the Hub have them at revision refs/convert/parquet)"
        )

    def _separated(self) -> IterableDataset:
        """The documents of .txt files, which end at the separator."""
        builder = patiently(lambda: load_dataset_builder(**self._arguments()), was_reached=True)
        if not isinstance(builder, TextFiles):
            raise SaemakeError(
                f"config key 'texts.{self.name}.separator' is for .txt files, and {self.place} has"
                " others: remove it"
            )
        files_of_split = builder.config.data_files
        if self.recipe.split not in files_of_split:
            raise ValueError(f"the splits are {', '.join(map(str, files_of_split))}")
        downloads = StreamingDownloadManager(base_path=builder.base_path)
        files = downloads.download_and_extract(list(files_of_split[self.recipe.split]))
        return IterableDataset.from_generator(self._split, gen_kwargs={"files": files})

    def _split(self, files: list[str]) -> Iterator[dict[str, str]]:
        separator, rest = self.recipe.separator, ""
        for file in files:
            with xopen(file, "r", encoding="utf-8") as opened:
                while chunk := opened.read(CHUNK):
                    rest += chunk
                    if separator:
                        *whole, rest = rest.split(separator)
                        yield from ({"text": document.strip("\n")} for document in whole)
                    if len(rest) > LONGEST:
                        raise SaemakeError(
                            self._too_long(
                                f"a document in {file} goes on for {len(rest):,} characters"
                            )
                        )
            if rest.strip("\n"):
                yield {"text": rest.strip("\n")}
            rest = ""

    def _read(self, rows: IterableDataset, first: int) -> Iterator[dict[str, Any]]:
        """The rows. Whatever a reader of files raises is told in a line."""
        reading, number = every_row(rows), first
        while True:
            try:
                row = next(reading, None)
            except (SaemakeError, *FAILURES, DatasetNotFoundError):
                raise
            except Exception as error:
                raise SaemakeError(self._unreadable(error, number)) from None
            if row is None:
                return
            yield row
            number += 1

    def _unreadable(self, error: Exception, number: int) -> str:
        for file in self._local_files():
            if (at := not_utf8(file)) is not None:
                return (
                    f"{file}: is not UTF-8 at byte {at:,}; write it anew as UTF-8, such as by"
                    " `iconv -f LATIN1 -t UTF-8`"
                )
        return (
            f"{self}: cannot be read after {number:,} rows ({type(error).__name__}:"
            f" {first_line(error)}); mend the file, or leave it out"
        )

    def _local_files(self) -> list[Path]:
        """The files of a local text that hold characters as they are."""
        if self.text.hub is not None:
            return []
        place = Path(self.place)
        files = [place] if place.is_file() else content_files(place)
        return [file for file in files if file.suffix in (".txt", ".json", ".jsonl", ".csv")]


def not_utf8(file: Path) -> int | None:
    """The place of the first byte that is not UTF-8; None if all are."""
    rest, start = b"", 0
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            rest += block
            try:
                rest.decode()
                start, rest = start + len(rest), b""
            except UnicodeDecodeError as error:
                # A character may go on in the next block.
                if error.end < len(rest) or error.reason != "unexpected end of data":
                    return start + error.start
                start, rest = start + error.start, rest[error.start :]
    return start if rest else None


def _kind(value: Any) -> str:
    """What a value is, for people."""
    names = {
        list: "a list",
        dict: "an object",
        int: "a number",
        float: "a number",
        bool: "a boolean",
    }
    return names.get(type(value), f"a {type(value).__name__}")
