"""The architectures that other libraries' loaders know."""

from saemake import architectures

# Trainer class -> dictionary class. dictionary_learning 0.1.0 goes by the dictionary's class, SAE
# Bench 0.6.0 and SAELens by the trainer's.
KNOWN = {
    "StandardTrainer": "AutoEncoder",
    "StandardTrainerAprilUpdate": "AutoEncoder",
    "PAnnealTrainer": "AutoEncoder",
    "GatedSAETrainer": "GatedAutoEncoder",
    "TopKTrainer": "AutoEncoderTopK",
    "BatchTopKTrainer": "BatchTopKSAE",
    "MatryoshkaBatchTopKTrainer": "MatryoshkaBatchTopKSAE",
    "JumpReluTrainer": "JumpReluAutoEncoder",
}


def read_elsewhere(architecture: str) -> bool:
    """Whether the loaders of dictionary_learning, SAE Bench and SAELens read SAEs of an
    architecture."""
    kind = architectures.get(architecture)
    return not kind.skip and KNOWN.get(kind.trainer_class) == kind.dict_class
