"""The same training in two processes, as several GPUs would run it: every process ends with the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from core_models.foundation.train import train
from tests.foundation import pools

torch.set_num_threads(1)
out = Path(sys.argv[1])
recipe = pools.recipe(steps=2, tasks=("findings", "segmentation"))
model, _ = train(recipe, pools.pools_of(recipe), out / "work", log=lambda text: None)
rank = os.environ["RANK"]
save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / f"rank{rank}.safetensors")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, str(tmp_path)], env=environment, cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    # Running statistics are each process's own; what is learnt is shared.
    learnt = [name for name in first if "running_" not in name and first[name].is_floating_point()]
    assert all(torch.equal(first[name], second[name]) for name in learnt)
    assert (tmp_path / "work" / "state.json").is_file()
