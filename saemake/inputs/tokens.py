"""Text to token shards. Runs on the CPU and may need the network."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from saemake import evaluation
from saemake.base import progress
from saemake.base.errors import SaemakeError
from saemake.base.saying import say
from saemake.base.store import Store, sha256
from saemake.config.config import Config
from saemake.inputs import chats, layouts
from saemake.inputs.layouts import Context, Document, Mixture
from saemake.inputs.rows import Source
from saemake.paths.artifacts import TokensFile
from saemake.recipes.kinds import TokensRecipe
from saemake.text import shards

SHARD_TOKENS = 2**24
# If as many contexts at the beginning have no token that is kept, no more are read.
NONE_KEPT_AT_MOST = 1000


def make(
    config: Config,
    model: str,
    use: str,
    recipe: TokensRecipe,
    tokenizer: PreTrainedTokenizerBase,
    store: Store,
    skips: Sequence[int] = (),
) -> None:
    """Tokenise the text that a model is trained or evaluated on (see recipes.tokens_recipe) into
    the store. `skips` are the rows that are left out at the beginning of the text, or of each part
    of a mixture; none if it is empty.

    Raises SaemakeError if the text cannot be reached, or is too short; the message says how short.
    """
    read = Reader(
        config, config.text_of(model, use), recipe, tokenizer, store, TokensFile(model, use)
    )
    contexts = read.contexts(skips)
    with store.entry(recipe.hash) as folder:
        counted = Counted(read.dropped)
        enough = _enough(contexts, recipe, f"tokens {model} {use}", counted, read)
        counts, parts = _write(folder, enough, len(tokenizer), len(recipe.sources))
        for line in read.left_out():
            say(line)
        _check_enough(config, model, use, read, contexts.ran_out, counts, counted)
        manifest = {
            "text_revision": ", ".join(filter(None, read.revisions)) or None,
            "recipe_hash": recipe.hash,
            "special_tokens": read.specials,
            **counts,
            **({"dropped_ids": read.dropped} if recipe.dropped else {}),
            **({"parts": _named(parts, read.revisions)} if recipe.mix else {}),
        }
        (folder / shards.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _named(
    parts: Sequence[dict[str, int]], revisions: Sequence[str | None]
) -> list[dict[str, Any]]:
    """What the manifest says of each part of a mixture, in its order."""
    return [
        {"text_revision": revision, **part} for revision, part in zip(revisions, parts, strict=True)
    ]


def rows_read(manifest: dict[str, Any]) -> list[int]:
    """How many rows were read of the text of a manifest, or of each part of a mixture."""
    return [part["rows_read"] for part in manifest.get("parts", [manifest])]


class Reader:
    """Reads a text as a recipe says: `sources` are where its rows come from, one for each part of a
    mixture."""

    def __init__(
        self,
        config: Config,
        text: str,
        recipe: TokensRecipe,
        tokenizer: PreTrainedTokenizerBase,
        store: Store,
        target: TokensFile,
    ) -> None:
        """`text` is a key of the config's texts, `target` the file that it is read for. The store
        has the commits of revisions beside it. Raises SaemakeError if the Hub cannot be reached, or
        the tokenizer lacks a token that the recipe needs."""
        self.text, self.recipe, self.tokenizer = text, recipe, tokenizer
        self.specials = special_tokens(tokenizer)
        self.dropped = dropped_ids(tokenizer, recipe)
        if recipe.prepend_bos and self.specials["bos"] is None:
            raise SaemakeError(
                f"config key 'models.{target.model}.prepend_bos' is true, but the tokenizer has"
                " neither BOS nor an EOS to use in its place; remove the key"
            )
        revisions = store.beside("revisions")
        self.sources = [
            Source(config, name, source, target, revisions)
            for name, source in zip(config.parts_of(text), recipe.sources, strict=True)
        ]

    @property
    def revisions(self) -> list[str | None]:
        """The commit of each source; None of a local one."""
        return [source.revision for source in self.sources]

    def left_out(self) -> list[str]:
        """A line for each source of which rows were left out so far."""
        return [f"{source}: {source.left_out}" for source in self.sources if source.left_out.rows]

    def contexts(self, skips: Sequence[int] = ()) -> Mixture:
        """The contexts, without the first `skips` rows of each source."""
        rounds = [part.contexts for part in self.recipe.mix] or [1]
        skips = skips or [0] * len(self.sources)
        return Mixture(
            [
                (contexts, self._laid_out(source, skip))
                for contexts, source, skip in zip(rounds, self.sources, skips, strict=True)
            ]
        )

    def _laid_out(self, source: Source, skip: int) -> Iterator[Document]:
        """The contexts of one source, by its layout. The chat template writes the special tokens of
        chats, and `joined` those of its contexts."""
        recipe, tokenizer, length = source.recipe, self.tokenizer, self.recipe.context_tokens
        documents = self._documents(source, skip)
        special, bos = recipe.chat is None, self.specials["bos"]
        if recipe.layout == "packed":
            whole = layouts.tokenised(documents, tokenizer, None, special=special)
            return layouts.packed(whole, length, bos, tokenizer.bos_token_id)
        if recipe.layout == "joined":
            begin, between = self._between(source)
            texts = layouts.joined(documents, length, begin, between)
            return layouts.tokenised(texts, tokenizer, length, special=False)
        cut = layouts.tokenised(documents, tokenizer, length, special=special)
        return layouts.begun_with(cut, bos, length) if self.recipe.prepend_bos else cut

    def _documents(self, source: Source, skip: int) -> Iterator[tuple[int, str]]:
        if source.recipe.chat is None:
            return source.documents(skip, self.recipe.shuffle_seed)
        return chats.documents(
            source, source.recipe.chat, self.tokenizer, skip, self.recipe.shuffle_seed
        )

    def _between(self, source: Source) -> tuple[str, str]:
        """What `joined` writes at a context's beginning and between documents: BOS and EOS; nothing
        for chats, whose template writes them."""
        if source.recipe.chat is not None:
            return "", ""
        eos = self.tokenizer.eos_token
        if eos is None:
            raise SaemakeError(
                f"config key 'texts.{source.name}.layout': 'joined' puts EOS between documents, and"
                f" the tokenizer of '{source.target.model}' has none; use 'packed' or 'documents'"
            )
        return self.tokenizer.bos_token or eos, eos


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The ids of BOS, EOS and padding. If the tokenizer lacks BOS or padding, EOS takes its place,
    as in TransformerLens, on which SAE Bench runs; None if there is no EOS either. `notes` says
    so."""
    eos = tokenizer.eos_token_id
    ids = {"bos": tokenizer.bos_token_id, "eos": eos, "pad": tokenizer.pad_token_id}
    notes = [] if eos is not None else ["the tokenizer has no EOS"]
    for name in ("bos", "pad"):
        if ids[name] is None:
            ids[name] = eos
            instead = "none is used" if eos is None else f"EOS ({eos}) stands for it"
            notes.append(f"the tokenizer has no {name.upper()}: {instead}")
    return {**ids, "notes": notes}


def dropped_ids(tokenizer: PreTrainedTokenizerBase, recipe: TokensRecipe) -> list[int]:
    """The ids that the recipe drops, sorted: BOS, or the id used in its place, and for `special`
    all special tokens of the tokenizer."""
    bos = special_tokens(tokenizer)["bos"]
    ids = set(tokenizer.all_special_ids if "special" in recipe.dropped else [])
    if recipe.dropped and bos is not None:
        ids.add(bos)
    return sorted(ids)


class Counted:
    """Counts the tokens whose ids are not dropped."""

    def __init__(self, dropped: list[int]) -> None:
        self.dropped = np.array(dropped, dtype=np.uint32)
        self.tokens = 0
        self.contexts = 0

    def add(self, ids: np.ndarray) -> int:
        """Add the tokens of a context that count. Returns how many they are."""
        tokens = len(ids)
        if len(self.dropped):
            tokens -= int(np.isin(ids, self.dropped).sum())
        self.tokens += tokens
        self.contexts += 1
        return tokens


def _enough(
    contexts: Mixture, recipe: TokensRecipe, label: str, counted: Counted, read: Reader
) -> Iterator[Context]:
    """Contexts until the recipe's number of tokens, or of contexts, is reached."""
    amount = 0
    with progress.bar(recipe.amount, label, recipe.unit[:3]) as bar:
        for context in contexts:
            yield context
            tokens = counted.add(context.ids)
            added = tokens if recipe.unit == "tokens" else 1
            amount += added
            bar.update(added)
            if counted.contexts == NONE_KEPT_AT_MOST:
                check_kept(read, counted)
            if amount >= recipe.amount:
                return


def check_kept(read: Reader, counted: Counted) -> None:
    """Raise SaemakeError if all tokens so far have ids that are dropped."""
    if counted.contexts and not counted.tokens:
        names = read.tokenizer.convert_ids_to_tokens(read.dropped)
        listed = ", ".join(f"{name} ({id_})" for name, id_ in zip(names, read.dropped, strict=True))
        raise SaemakeError(
            f"text '{read.text}': 'drop' leaves no token: all of the first {counted.contexts:,}"
            f" contexts are {listed}; drop less (drop.bos, drop.special), or look at the text by"
            f" `saemake text {read.text}`"
        )


def _write(
    folder: Path, contexts: Iterator[Context], vocabulary: int, sources: int
) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """Write shards. Returns their part of the manifest: the shards, the numbers of documents (or
    contexts) and tokens, and how many rows of the text were read; and these numbers of each
    source."""
    listed: list[dict[str, Any]] = []
    parts = [{"documents": 0, "tokens": 0, "rows_read": 0} for _ in range(sources)]
    for index, group in enumerate(_by_shard(contexts)):
        path = folder / f"shard_{index:05d}.safetensors"
        path.write_bytes(shards.pack([context.ids for context in group], vocabulary))
        for context in group:
            part = parts[context.part]
            part["documents"] += 1
            part["tokens"] += len(context.ids)
            part["rows_read"] = context.row + 1
        listed.append(
            {
                "file": path.name,
                "documents": len(group),
                "tokens": sum(len(context.ids) for context in group),
                "sha256": sha256(path),
            }
        )
    sums = {key: sum(part[key] for part in parts) for key in ("documents", "tokens", "rows_read")}
    return {**sums, "shards": listed}, parts


def _by_shard(contexts: Iterator[Context]) -> Iterator[list[Context]]:
    group: list[Context] = []
    size = 0
    for context in contexts:
        group.append(context)
        size += len(context.ids)
        if size >= SHARD_TOKENS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_enough(
    config: Config,
    model: str,
    use: str,
    read: Reader,
    ran_out: int | None,
    counts: dict[str, Any],
    counted: Counted,
) -> None:
    recipe = read.recipe
    check_kept(read, counted)
    if (counted.tokens if recipe.unit == "tokens" else counts["documents"]) >= recipe.amount:
        return
    one_each = recipe.layout == "documents"
    unit = recipe.unit if one_each or recipe.unit == "tokens" else "contexts"
    after = ", after the documents trained on" if recipe.after else ""
    split = "" if recipe.split is None else f" (split '{recipe.split}'{after})"
    dropped = counts["tokens"] - counted.tokens
    of_dropped = f" ({dropped:,} of them of dropped ids)" if dropped else ""
    gave = (
        f"text '{read.text}'{split} gave {counts['tokens']:,} tokens{of_dropped} in"
        f" {counts['documents']:,} {'documents' if one_each else 'contexts'}"
        f"{_which_ran_out(read, ran_out)}, fewer than the {recipe.amount:,} {unit}"
    )
    if use != "train":
        settings, key = config.evaluation_of(model, use), f"models.{model}.evaluations.{use}"
        way_out = evaluation.on_text(use).too_little_text(settings, key, counts["documents"])
        raise SaemakeError(f"{gave} of {way_out}")
    training = config.training_of(model)
    norm_over_median, reserve = training.drop.norm_over_median, training.drop.reserve
    kept = counted.tokens if norm_over_median is None else int(counted.tokens / (1 + reserve))
    fits = kept - training.norm_batches * training.batch_tokens
    asking = f"models.{model}.train_tokens and training.norm_batches"
    if norm_over_median is not None:
        asking += f", with training.drop.reserve {reserve:g},"
    raise SaemakeError(
        f"{gave} that {asking} ask for; set models.{model}.train_tokens to at most {max(fits, 0):,}"
        + (f", or lower the part's number in texts.{read.text}.mix" if recipe.mix else "")
    )


def _which_ran_out(read: Reader, place: int | None) -> str:
    """A clause on the part of a mixture that has no more, and on rows that were left out."""
    left_out = read.left_out()
    said = f" ({'; '.join(left_out)})" if left_out else ""
    if read.recipe.mix and place is not None:
        said = f", when its part '{read.sources[place].name}' ran out{said}"
    return said
