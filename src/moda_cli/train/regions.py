"""What a training step does block by block: compiling, and forgetting what can be made again."""

from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from moda_cli.train.parallel import blocks_of


def prepare_blocks(network: nn.Module, compile: bool, checkpointing: bool) -> None:
    """Compile the network's blocks, and keep only their inputs for the backward pass.

    Blocks of one kind share what is compiled, so that it takes as long as for one of each. A
    network without blocks is compiled whole. Hooks, such as those of FSDP, stay outside.
    """
    for block in blocks_of(network) or [network]:
        forward = block.forward
        if compile:
            forward = torch.compile(forward)
        if checkpointing:  # nothing in a block is drawn at random
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        block.forward = forward
