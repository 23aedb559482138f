"""A run of SAE Bench's worker: what it is given, in folders of its own, and what it says."""

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saemake.base.errors import SaemakeError
from saemake.llm.weights import Weights
from saemake.paths.judged_by import short_name

log = logging.getLogger(__name__)
SCRIPT = Path("workflow/workers/sae_bench/run.py")
# What a worker's last line begins with where it failed.
FAILED = "saemake: "
JUDGED = re.compile(r"judged (\d+)")
# What a worker sees of the environment: no token or key of any kind, and nothing that points to
# another cache or package.
PASSED = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
PASSED_PREFIXES = ("LC_", "CUDA", "NVIDIA", "NCCL", "PYTORCH", "TORCH", "SAEMAKE")
# Those of a proxy, for a worker that asks a judge.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")
MOST_OF_A_LINE = 400


@dataclass(frozen=True)
class Worker:
    """Runs in `work`, an empty folder, by the environment's `python`. `root` is the project's."""

    root: Path
    python: Path
    work: Path

    def run(
        self,
        stage: str,
        job: Mapping[str, Any],
        keys: Mapping[str, str],
        judged: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Run a stage of a job (workflow/workers/sae_bench/job.py). `keys` are more variables of
        its environment. `judged` is called with the number of each SAE whose result is there.

        Raises SaemakeError with the worker's last line where it fails.
        """
        path = self.work / "job.json"
        path.write_text(json.dumps(job))
        last = ""
        command = [str(self.python), str(self.root / SCRIPT), str(path), stage]
        with subprocess.Popen(
            command,
            cwd=self.work,
            env=self._environment(keys),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    last = line.strip() or last
                    log.info("worker: %s", line.rstrip())
                    if done := JUDGED.fullmatch(line.strip()):
                        judged(int(done[1]))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said = last.removeprefix(FAILED) if last.startswith(FAILED) else f"it ended: {last}"
            raise SaemakeError(said[:MOST_OF_A_LINE])

    def _environment(self, keys: Mapping[str, str]) -> dict[str, str]:
        passed = {*PASSED, *(PROXIES if keys else ())}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.upper() in passed or name.startswith(PASSED_PREFIXES)
        }
        own = {
            "HF_HOME": str(self.work / "hf"),
            "HF_DATASETS_CACHE": str(self.work / "hf" / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        return {**kept, **own, **keys}

    def serve(self, lm_name: str, weights: Weights, revision: str | None) -> None:
        """Let TransformerLens find the LM's files under its name, in a cache of the worker's own:
        there the branch main is this revision."""
        folder = self.work / "hf" / "hub" / f"models--{lm_name.replace('/', '--')}"
        commit = revision or "0" * 40
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        for path in weights.folder.iterdir():
            if path.is_file():
                (snapshot / path.name).symlink_to(path.resolve())


def lay_out_sae(folder: Path, file: str, place: Path, lm_name: str) -> None:
    """An SAE's file, and its config.json with the LM's name as SAE Bench wants it; PCA has no
    config.json."""
    place.mkdir(parents=True)
    config = folder / "config.json"
    if not config.exists():
        (place / file).symlink_to((folder / file).resolve())
        return
    (place / "ae.pt").symlink_to((folder / file).resolve())
    content = json.loads(config.read_text())
    content["trainer"]["lm_name"] = short_name(lm_name)
    (place / config.name).write_text(json.dumps(content))
