"""Tokens as they are shown: their texts."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from saemake.base.errors import SaemakeError, first_line

# What sentencepiece writes for a space.
SENTENCEPIECE_SPACE = "\u2581"
# What a decoder writes for bytes that are no whole character.
NO_CHARACTER = "\ufffd"


class TokenTexts:
    """The texts of a tokenizer's tokens, each decoded once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: str) -> None:
        self.tokenizer, self.model = tokenizer, model
        self._texts: dict[int, str] = {}

    def of(self, ids: Iterable[int], *, of_text: bool = True) -> list[str]:
        """The text of each token, with its leading space. A token that is no whole character, or
        decodes to nothing, is shown as its name in the vocabulary. An id that the tokenizer does
        not use is shown as `#5` where it is not `of_text`: the unembedding has rows for such ids.

        Raises SaemakeError if the tokenizer cannot show tokens.
        """
        try:
            return [self._text(int(token), of_text) for token in ids]
        except SaemakeError:
            raise
        except Exception as error:  # whatever a tokenizer's own code raises
            raise SaemakeError(
                f"model '{self.model}': its tokenizer cannot show tokens"
                f" ({type(error).__name__}: {first_line(error)}); put the tokenizer that the model"
                " was trained with into its folder"
            ) from None

    def _text(self, token: int, of_text: bool) -> str:
        if token not in self._texts:
            name = self.tokenizer.convert_ids_to_tokens(token)
            if not isinstance(name, str):
                if not of_text:
                    return f"#{token}"
                raise SaemakeError(
                    f"model '{self.model}': its tokenizer cannot show token {token}, which the text"
                    " has; put the tokenizer that the model was trained with into its folder"
                )
            text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
            if name.startswith(SENTENCEPIECE_SPACE) and not text.startswith(" "):
                text = f" {text}"
            self._texts[token] = name if not text or NO_CHARACTER in text else text
        return self._texts[token]
