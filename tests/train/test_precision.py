"""What a run computes in: bfloat16 only where the processor has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moda_cli.device import has_bf16
from moda_cli.train.settings import train_config
from toy_features import write_features

PRECISIONS = """
import sys
from pathlib import Path

from torch import nn

from moda_cli.train.loop import train
from moda_cli.train.settings import train_config

features, run = map(Path, sys.argv[1:])
seen = set()

def note(module, _, output):
    if isinstance(module, nn.Linear):
        seen.add(str(output.dtype))

nn.modules.module.register_module_forward_hook(note)
settings = ["steps=1", "batch_size=4", "compile=false", "validate_windows=1"]
train(features, run, train_config("mini", settings), device="cpu", workers=0)
print(*seen)
"""


def run_without_bf16(*arguments: object) -> str:
    """The output of Python on a processor whose bfloat16 torch does not see."""
    without = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=without, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_settings_know_the_word() -> None:
    assert train_config("mini").bf16 == "auto"
    assert train_config("mini", ["bf16=true"]).bf16 is True
    assert train_config("mini", ["bf16=false"]).bf16 is False


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names an instruction set of x86")
def test_a_processor_without_bf16_is_known() -> None:
    code = (
        "import torch; from moda_cli.device import has_bf16; print(has_bf16(torch.device('cpu')))"
    )
    assert run_without_bf16("-c", code) == "False"
    assert isinstance(has_bf16(torch.device("cpu")), bool)


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names an instruction set of x86")
def test_without_bf16_a_run_computes_in_float32(tmp_path: Path) -> None:
    """Emulated bfloat16 takes eight times as long."""
    features = write_features(tmp_path / "features")
    assert run_without_bf16("-c", PRECISIONS, features, tmp_path / "run") == "torch.float32"
