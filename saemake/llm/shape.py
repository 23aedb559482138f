"""The shape of a language model: the sizes of its matrices, without its weights or a network."""

from typing import Any

from saemake.base.sections import Closed, Count


class Shape(Closed):
    """The shape of a decoder whose blocks are attention and an MLP. `gated_mlp`: the MLP has a
    third matrix. `tied`: the embedding is also the unembedding. Biases and norms are negligible and
    left out."""

    d_model: Count
    heads: Count
    kv_heads: Count
    head_width: Count
    mlp_width: Count
    gated_mlp: bool
    vocabulary: Count
    tied: bool

    @property
    def attention_width(self) -> int:
        """Width of the queries of all heads together."""
        return self.heads * self.head_width

    @property
    def block_weights(self) -> int:
        """Number of entries of one block's matrices."""
        attention = 2 * self.d_model * (self.heads + self.kv_heads) * self.head_width
        return attention + (3 if self.gated_mlp else 2) * self.d_model * self.mlp_width

    @property
    def head_weights(self) -> int:
        """Number of entries of the unembedding."""
        return self.d_model * self.vocabulary

    def weights(self, blocks: int) -> int:
        """Number of entries of all matrices of a model with `blocks` blocks."""
        embeddings = self.head_weights * (1 if self.tied else 2)
        return blocks * self.block_weights + embeddings


def shape_of(config: Any, *, own_code: bool = False) -> Shape:
    """The shape that a transformers config describes, checked on a model without weights.
    `own_code`: the model's own code may run for it. Raises ValueError if the blocks are not
    attention and an MLP, such as a mixture of experts."""
    import torch
    from transformers import AutoModelForCausalLM

    from saemake.llm.loading import block_list

    text = config.get_text_config()
    d_model, heads = text.hidden_size, text.num_attention_heads
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=own_code)
    name = block_list(model, text.num_hidden_layers)
    first = model.get_submodule(f"{name}.0")
    block_weights = sum(weight.numel() for weight in first.parameters() if weight.dim() == 2)
    for gated_mlp in (False, True):
        shape = Shape(
            d_model=d_model,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_width=getattr(text, "head_dim", None) or d_model // heads,
            mlp_width=getattr(text, "intermediate_size", None) or 4 * d_model,
            gated_mlp=gated_mlp,
            vocabulary=text.vocab_size,
            tied=bool(text.tie_word_embeddings),
        )
        if shape.block_weights == block_weights:
            return shape
    raise ValueError(f"the blocks of a {type(model).__name__} are more than attention and an MLP")
