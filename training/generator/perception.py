"""How different two pictures look to a network that knows pictures: the demo CLIP's, frozen, for the decoder's loss.

Differences of pixels alone teach a decoder to blur whatever it can't place exactly.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EfficientNetModel, VisionTextDualEncoderModel

SEEN_SIDE = 160  # what the network sees; it was trained on 260 pixels, which take more than twice as long


class Perception:
    """The distance of Zhang et al. 2018 (LPIPS) at the ends of the network's stages, without learnt weights.

    `sha256` is that of the folder's weights.
    """

    def __init__(self, folder: Path) -> None:
        self.sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        network = VisionTextDualEncoderModel.from_pretrained(folder, dtype=torch.float32).vision_model
        assert isinstance(network, EfficientNetModel)
        self._network = network.requires_grad_(False).train(False)
        # The network's depth coefficient is 1: its repeats are as many as they say.
        self._stage_ends = np.cumsum(network.config.num_block_repeats).tolist()

    def distance(self, decoded: Tensor, pixels: Tensor) -> Tensor:
        """0 (the same) to 4, the mean over pictures, stages and places. Both [n, 3, side, side], -1 to 1."""
        with torch.no_grad():
            wanted = self._look(pixels)
        distances = [
            (seen - known).square().sum(1).mean() for seen, known in zip(self._look(decoded), wanted, strict=True)
        ]
        return torch.stack(distances).mean()

    def _look(self, pixels: Tensor) -> list[Tensor]:
        """Directions of what each stage says of each place."""
        seen = functional.interpolate(pixels, size=(SEEN_SIDE, SEEN_SIDE), mode="bilinear", align_corners=False)
        states = self._network(seen, output_hidden_states=True).hidden_states
        return [functional.normalize(states[end], dim=1) for end in self._stage_ends]
