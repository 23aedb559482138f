"""Conversations as documents, by the tokenizer's chat template, as in dictionary_learning's
`hf_mixed_dataset_to_generator` (its main branch, May 2025).
"""

import random
from collections.abc import Iterator
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from saemake.base.errors import SaemakeError, first_line
from saemake.config.sections import Chat
from saemake.inputs.rows import Source

# Some templates write today's date by a function of this name. The same text must not change from
# day to day, so they write the date that Llama 3's template falls back to.
TODAY = "strftime_now"
A_DATE = f"{{%- macro {TODAY}(format) -%}}26 Jul 2024{{%- endmacro %}}"
# What a template raises for a chat that it does not take.
REFUSALS = (jinja2.TemplateError, TypeError, ValueError)
# If as many rows at the beginning give no chat, the column or the template is wrong.
REFUSED_AT_MOST = 100


def documents(
    source: Source,
    chat: Chat,
    tokenizer: PreTrainedTokenizerBase,
    skip: int,
    shuffle_seed: int | None,
) -> Iterator[tuple[int, str]]:
    """The row and the text of each conversation, in the order of the text. Rows that are no
    conversation, or one that the template refuses, are left out and counted.

    A number is drawn for each chat; below `chat.removed` the system prompt is taken out.

    Raises SaemakeError if the tokenizer has no chat template, if the first rows all are left out,
    or if the system prompt is not what the template writes.
    """
    if not tokenizer.chat_template:
        raise SaemakeError(
            f"config key 'texts.{source.name}.chat' needs a tokenizer with a chat template, and"
            f" that of '{source.target.model}' has none; use the instruction-tuned model, or remove"
            " the key"
        )
    if chat.system_prompt is not None:
        _check_system_prompt(source, chat.system_prompt, tokenizer)
    drawn = random.Random(chat.seed)
    made = refused = 0
    for row, conversation in source.values(skip, shuffle_seed):
        reason = fault(conversation)
        if reason is None:
            try:
                text = _written(tokenizer, conversation)
            except REFUSALS as error:
                reason = f"is refused by the chat template ({first_line(error)})"
        if reason is not None:
            source.left_out.add(reason, row)
            refused += 1
            if not made and refused == REFUSED_AT_MOST:
                raise SaemakeError(
                    f"{source}: the first {refused} rows give no chat: row {row} {reason}; set"
                    f" texts.{source.name}.column to the conversations, lists of messages with"
                    " 'role' and 'content'"
                )
            continue
        made += 1
        if chat.system_prompt is not None and drawn.random() < chat.removed:
            text = text.replace(chat.system_prompt, "")
        yield row, text


def fault(conversation: Any) -> str | None:
    """Why a value is no conversation, to go on after 'row 3 ...'; None if it is one: a list of
    messages, each with the strings `role` and `content`."""
    if not isinstance(conversation, list):
        return f"is a {type(conversation).__name__}, not a list of messages"
    if not conversation:
        return "has no messages"
    for message in conversation:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            keys = ", ".join(message) if isinstance(message, dict) else type(message).__name__
            return f"has a message of {keys}, not of role and content"
        if not all(isinstance(message[key], str) for key in ("role", "content")):
            return "has a message without text"
    return None


def _written(tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, Any]]) -> str:
    """The conversation as the template writes it. Raises what the template raises."""
    template = tokenizer.get_chat_template()
    if TODAY in template:
        template = A_DATE + template
    return str(tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False))


def _check_system_prompt(
    source: Source, system_prompt: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise SaemakeError if the template does not write it by itself before a chat."""
    try:
        written = _written(tokenizer, [{"role": "user", "content": "?"}])
    except REFUSALS as error:
        raise SaemakeError(
            f"config key 'texts.{source.name}.chat': the chat template of '{source.target.model}'"
            f" refuses a chat of one question ({first_line(error)}); use another model's tokenizer"
        ) from None
    if system_prompt not in written:
        raise SaemakeError(
            f"config key 'texts.{source.name}.chat.system_prompt': the chat template writes no such"
            f" text before a chat; it writes {written!r}"
        )
