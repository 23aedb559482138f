"""Where a stage of benchmarks/gpu.py computes, writes, and how much it may do."""

import dataclasses
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


@dataclasses.dataclass
class Run:
    """What every stage has: where it computes, where it writes, how much it may do."""

    device: torch.device
    out: Path
    small: bool
    until: float

    @property
    def seconds_left(self) -> float:
        return self.until - time.monotonic()

    def choose(self, large: Any, small: Any) -> Any:
        """The size of a GPU's run, or that of a trial on a CPU."""
        return small if self.small else large

    def seconds(self, work: Callable[[], Any], count: int) -> float:
        """Mean seconds of one of `count` calls, by the device's own clock."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            for _ in range(count):
                work()
            return (time.perf_counter() - start) / count
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        for _ in range(count):
            work()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1000 / count

    def profiled(self, work: Callable[[], Any], name: str) -> tuple[int, float]:
        """How many kernels a call launches, and the milliseconds that the device computes; the
        profiler's tables, by the host's time and the device's, go to OUT/profiles.txt."""
        if self.device.type != "cuda":
            return 0, 0.0
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            work()
            torch.cuda.synchronize()
        averages = profile.key_averages()
        with (self.out / "profiles.txt").open("a") as file:
            for order in ("self_cpu_time_total", "self_device_time_total"):
                table = averages.table(sort_by=order, row_limit=40, max_name_column_width=80)
                file.write(f"{name}\n{table}\n")
        on_device = [
            event
            for event in averages
            if event.self_device_time_total > 0 and event.self_cpu_time_total == 0
        ]
        busy_ms = sum(event.self_device_time_total for event in on_device) / 1000
        return sum(event.count for event in on_device), busy_ms

    def row(self, about: dict[str, Any], case: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A case's row, printed at once: what it is about and what it found, or its traceback, so
        that the next case runs."""
        try:
            row = about | case()
        except Exception:
            row = about | {"error": traceback.format_exc()[-1500:]}
        self.forget()
        print(json.dumps(row), flush=True)
        return row

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None

    def forget(self) -> None:
        """Give memory back and count its peak anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
