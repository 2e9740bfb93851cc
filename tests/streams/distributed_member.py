"""One of the processes that `torchrun` starts in a test: trains, and leaves the theta it ended with."""

import streams  # noqa: F401, I001 - first: sets what equal bits need of the environment
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from streams.laboratory.distributed import place
from streams.laboratory.assembled import laboratory
from streams.laboratory.training import train
from streams.settings.tree import load_settings


def main(config: Path, left: Path) -> None:
    torch.set_num_threads(1)
    with place("cpu") as here:
        last = train(laboratory(load_settings(config, {})), here, lambda _step, _stretch: None)
        save_file(last.state.params, left / f"{here.rank}-of-{here.processes}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
