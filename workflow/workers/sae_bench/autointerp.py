"""SAE Bench's automated interpretability: a judge, which is an LM behind an OpenAI-compatible
endpoint, explains latents, and tells from the explanation which texts they fire on.

Every question is kept with its answer, so a second run asks nothing. Each question names a few
random numbers as an example of an answer. SAE Bench draws them in the order in which answers come
in. This draws them for each question by itself.
"""

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from calling import results_of
from datasets_at_hand import read_from
from job import Job
from lm import language_model
from openai import OpenAI
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.evals.autointerp import main
from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig
from sae_bench.sae_bench_utils import dataset_utils

# A judge that asks to slow down is asked again. Each pause is longer than the one before.
RETRIES, TIMEOUT_SECONDS = 8, 120
_SCORING, _RUN = main.AutoInterp.get_scoring_prompts, main.AutoInterp.run


def setup(job: Job) -> None:
    """The tokens that latents are looked for in."""
    read_from(job.data, dataset_utils)
    config = _config(job)
    tokens = dataset_utils.load_and_tokenize_dataset(
        config.dataset_name,
        config.llm_context_size,
        config.total_tokens,
        language_model(job).tokenizer,
    )
    folder = job.setup / main.EVAL_TYPE_ID_AUTOINTERP
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{job.model}_{config.total_tokens}_tokens_{config.llm_context_size}_ctx.pt"
    torch.save(tokens, folder / name)


def judge(job: Job, sae: BaseSAE) -> Path:
    """The file with the results of an SAE."""
    read_from({}, dataset_utils)
    main.AutoInterp.get_scoring_prompts = _scoring_prompts
    main.AutoInterp.run = _in_order
    main.AutoInterp.get_api_response = Judge(job).answer
    # The key is the judge's.
    options = {"api_key": "", "artifacts_path": str(job.setup)}
    return results_of(main.run_eval, _config(job), job, sae, **options)


class JudgeError(Exception):
    """The endpoint gave no answer."""


class Judge:
    """The endpoint that the job names. The key is in the environment variable of its `key`."""

    def __init__(self, job: Job) -> None:
        self.model, self.base_url = job.judge["model"], job.judge["base_url"]
        self.answers = Path(job.judge["answers"])
        self.key = os.environ[job.judge["key"]]
        self.failed: JudgeError | None = None
        self.answers.mkdir(parents=True, exist_ok=True)
        self.client = OpenAI(
            base_url=self.base_url,
            api_key=self.key,
            max_retries=RETRIES,
            timeout=TIMEOUT_SECONDS,
        )

    def answer(
        self, messages: list[dict[str, str]], max_tokens: int, n_completions: int = 1
    ) -> tuple[list[str], str]:
        """The answers to a question, and both as text. Called from several threads. Raises
        JudgeError where the endpoint gives none, or an empty one. After the first failure nothing
        more is asked."""
        question = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "n": n_completions,
        }
        named = json.dumps([self.base_url, question], sort_keys=True)
        path = self.answers / f"{hashlib.sha256(named.encode()).hexdigest()}.json"
        if not path.exists():
            if self.failed:
                raise self.failed
            try:
                _put(path, {"question": question, "answers": self._ask(question)})
            except Exception as error:
                # The endpoint may repeat the key, and asyncio prints what nobody waits for.
                said = f"{type(error).__name__}: {error}".replace(self.key, "***")
                self.failed = JudgeError(said)
                raise self.failed from None
        answers = json.loads(path.read_text())["answers"]
        said = [*messages, {"role": "assistant", "content": answers[0]}]
        return answers, "\n".join(f"{part['role']}: {part['content']}" for part in said)

    def _ask(self, question: dict[str, Any]) -> list[str]:
        result = self.client.chat.completions.create(**question, stream=False)
        texts = [(choice.message.content or "").strip() for choice in result.choices]
        if not texts or not all(texts):
            raise ValueError(f"the judge {self.model} gave an empty answer")
        return texts


def _put(path: Path, content: Any) -> None:
    """Whole or not at all. Where another thread was faster, its answer stays."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(content, file, indent=1)
    try:
        os.link(file.name, path)
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        Path(file.name).replace(path)
    Path(file.name).unlink(missing_ok=True)


def _scoring_prompts(self: Any, explanation: str, scoring_examples: Any) -> Any:
    texts = [example.to_str() for example in scoring_examples]
    # A generator of its own: openai's client draws from the common one, in other threads.
    main.random = random.Random(json.dumps([self.cfg.random_seed, explanation, texts]))
    try:
        return _SCORING(self, explanation, scoring_examples)
    finally:
        main.random = random


async def _in_order(self: Any, *arguments: Any, **options: Any) -> dict[int, Any]:
    results = await _RUN(self, *arguments, **options)
    return dict(sorted(results.items()))


def _config(job: Job) -> AutoInterpEvalConfig:
    return AutoInterpEvalConfig(model_name=job.model, **job.settings)
