"""Hours on a device: operations over its rate, and what passes through its memory over its
bandwidth. An estimate: what waits for the other is not known, so the two are added."""

from dataclasses import dataclass

from saemake.config.sections import Device, DType
from saemake.plan.operations import Operations

# Times that a training step reads or writes each parameter of an SAE in float32: casts and their
# gradients 5, clipping 3, Adam 7, projection and norms of the decoder 5.
PARAMETER_PASSES = 20
# Times that it reads or writes each latent of its batch, forward and backward.
LATENT_PASSES = 16
# The same of a codec's latents, and of the logits that its run of the LM gives, in float32, when it
# is judged.
JUDGED_PASSES = 12
LOGIT_PASSES = 6


@dataclass(frozen=True)
class Traffic:
    """Bytes to and from the device's memory besides the matrix products' own."""

    amount: int

    @classmethod
    def of_training(
        cls, parameters: int, latents: int, batch_tokens: int, autocast: str, steps: int
    ) -> "Traffic":
        """Of all steps of an SAE."""
        element = 2 if autocast == "bfloat16" else 4
        step = 4 * PARAMETER_PASSES * parameters + element * LATENT_PASSES * batch_tokens * latents
        return cls(steps * step)

    @classmethod
    def of_judging(cls, latents: int, tokens: int, vocabulary: int, predicted: int) -> "Traffic":
        """Of latents summed over codecs, at all tokens; logits at those predicted, summed over
        runs of the LM."""
        return cls(4 * JUDGED_PASSES * latents * tokens + 4 * LOGIT_PASSES * vocabulary * predicted)


def hours(
    device: Device, done: Operations, traffic: Traffic, lm_dtype: DType, sae_dtype: DType
) -> float:
    """Of a job: its LM in one dtype, its SAEs in another; latents dead as soon as they can be."""
    seconds = done.lm / _operations_a_second(device, lm_dtype)
    seconds += (done.saes + done.dead) / _operations_a_second(device, sae_dtype)
    seconds += traffic.amount / (device.gigabytes_per_second * 1e9 * device.utilisation)
    return seconds / 3600


def _operations_a_second(device: Device, dtype: DType) -> float:
    rate = device.float32_tflops if dtype == "float32" else device.bfloat16_tflops
    return rate * 1e12 * device.utilisation
