"""A small Llama in a GGUF file, its matrices quantised, drawn at random."""

from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, MLP, VOCABULARY = 3, 64, 2, 96, 128


def write(path: Path, seed: int = 0) -> None:
    """Write the model to a .gguf file."""
    draw = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_token_list([f"<{number}>" for number in range(VOCABULARY)])
    matrices = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH)}
    for block in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrices[f"blk.{block}.{name}"] = (WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            matrices[f"blk.{block}.{name}"] = (MLP, WIDTH)
        matrices[f"blk.{block}.ffn_down"] = (WIDTH, MLP)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, size in matrices.items():
        weight = draw.normal(size=size, scale=0.2).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
