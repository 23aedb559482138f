"""eai-sparsify's training step after its Trainer: its SparseCoder, and Adam of torch, which it
falls back to without bitsandbytes. Autocast, which it has on GPUs only, is put around it by us."""

import loop
import torch
from sparsify import SparseCoder, SparseCoderConfig


def main() -> None:
    asked = loop.arguments()
    torch.set_num_threads(asked.threads)
    sae = SparseCoder(
        asked.d_model,
        SparseCoderConfig(num_latents=asked.width, k=asked.active, normalize_decoder=True),
        device=asked.device,
        dtype=torch.float32,
    )
    state = torch.load(asked.state, weights_only=True)
    given = state["weights"]
    with torch.no_grad():
        sae.encoder.weight.copy_(given["encoder.weight"])
        sae.encoder.bias.copy_(given["encoder.bias"])
        sae.W_dec.copy_(given["decoder.weight"].T)
        sae.b_dec.copy_(given["b_dec"])
    x_BD = state["batch"].to(asked.device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-4)
    since_fired_F = torch.zeros(asked.width, dtype=torch.long, device=asked.device)

    def step(number: int) -> None:
        with torch.autocast(
            torch.device(asked.device).type,
            dtype=torch.bfloat16,
            enabled=asked.dtype == "bfloat16",
        ):
            out = sae(x_BD)
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        sae.set_decoder_norm_to_unit_norm()
        since_fired_F.add_(len(x_BD))
        since_fired_F[out.latent_indices.flatten()] = 0

    step(0)
    loop.serve(asked, step)


if __name__ == "__main__":
    main()
