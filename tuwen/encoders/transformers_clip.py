"""Any dual encoder that transformers' AutoModel reads: Chinese-CLIP, CLIP, SigLIP (2, too), VisionTextDualEncoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from tuwen.encoders.base import CHINESE_CLIP_CONTEXT, Embeddings, ImageTextEncoder, PreparedPicture, unit_rows
from tuwen.encoders.picture import prepare_picture
from tuwen.encoders.token_batches import MOST_TOKENS, in_token_batches

# They pool the last position, be it padding, and were trained on texts of full length ("make sure to set
# padding='max_length' as that's how the model was trained": get_text_features in transformers' modeling_siglip.py).
PADDED_TO_THE_END = {"siglip_text_model", "siglip2_text_model"}


class TransformersClip(ImageTextEncoder):
    most_tokens = MOST_TOKENS

    def __init__(self, folder: Path, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.device = device
        self._dtype = dtype
        self.pin_memory = device.startswith("cuda")
        self.model = self._load_model(folder).to(device).eval()
        self.tokenizer = self._load_tokenizer(folder)
        self.image_processor = self._load_image_processor(folder)
        self.pad_to_square = bool(getattr(self.image_processor, "do_center_crop", False))
        self._max_tokens = self._context_length()
        text_model = getattr(self.model.config.text_config, "model_type", "")
        self._padding = "max_length" if text_model in PADDED_TO_THE_END else True
        self.dim = self.encode_texts(["a"]).shape[1]

    def prepare(self, image: Image.Image) -> PreparedPicture:
        prepared = prepare_picture(image, pad_to_square=self.pad_to_square)
        # All that it gives: NaFlex, which keeps a picture's proportions, wants a mask and shapes beside the pixels.
        return dict(self.image_processor(images=[prepared], return_tensors="np"))

    def encode_prepared(self, pictures: Sequence[PreparedPicture]) -> Embeddings:
        with torch.inference_mode():
            return unit_rows(self.picture_features(pictures).float().cpu().numpy())

    def picture_features(self, pictures: Sequence[PreparedPicture]) -> torch.Tensor:
        """[n, dim], of no certain length; with gradients, for whoever trains the model."""
        inputs = {name: self._batch([picture[name] for picture in pictures]) for name in pictures[0]}
        features: torch.Tensor = self.model.get_image_features(**inputs).pooler_output
        return features

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        return in_token_batches(self._encode_texts, texts, longest=self._max_tokens, most_tokens=self.most_tokens)

    def _encode_texts(self, texts: Sequence[str]) -> Embeddings:
        with torch.inference_mode():
            return unit_rows(self.text_features(texts).float().cpu().numpy())

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """As `picture_features`."""
        features: torch.Tensor = self.model.get_text_features(**self.tokenize(texts).to(self.device)).pooler_output
        return features

    def on_one_thread(self) -> Self:
        return self  # torch asks the thread that calls it

    def _batch(self, arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        """On the device. Put together in pinned memory for a GPU, which fetches it from there by itself."""
        first = torch.from_numpy(arrays[0])
        shape = (sum(len(array) for array in arrays), *first.shape[1:])
        batch = torch.empty(shape, dtype=first.dtype, pin_memory=self.pin_memory)
        np.concatenate(arrays, out=batch.numpy())
        batch = batch.to(self.device, non_blocking=self.pin_memory)
        return batch.to(self._dtype) if batch.is_floating_point() else batch

    def tokenize(self, texts: Sequence[str]) -> transformers.BatchEncoding:
        tokens: transformers.BatchEncoding = self.tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        return tokens

    def _load_model(self, folder: Path) -> Any:
        model = transformers.AutoModel.from_pretrained(folder, dtype=self._dtype, trust_remote_code=False)
        _pool_by_mean(model)
        return model

    def _load_tokenizer(self, folder: Path) -> Any:
        return transformers.AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=False
        ).tokenizer

    def _load_image_processor(self, folder: Path) -> Any:
        # PIL resizes as in training; torchvision, which transformers prefers once it is installed, moves vectors 2e-3.
        return transformers.AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil", trust_remote_code=False
        )

    def _context_length(self) -> int:
        config = self.model.config
        positions = int(getattr(config.text_config, "max_position_embeddings", 512))
        limit = CHINESE_CLIP_CONTEXT if config.model_type == "chinese_clip" else positions
        return min(limit, positions, int(self.tokenizer.model_max_length))


def _pool_by_mean(model: torch.nn.Module) -> None:
    """EfficientNet takes its mean by a window that is larger than the picture, which no other runtime knows."""
    for module in model.modules():
        if isinstance(module, transformers.EfficientNetModel) and isinstance(module.pooler, torch.nn.AvgPool2d):
            setattr(module, "pooler", torch.nn.AdaptiveAvgPool2d(1))  # noqa: B010  # typed as the window
