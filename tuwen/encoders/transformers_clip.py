"""Any dual encoder that transformers' AutoModel reads: Chinese-CLIP, CLIP, SigLIP (2, too), VisionTextDualEncoder."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image

from tuwen.encoders.base import Embeddings, unit_rows
from tuwen.encoders.picture import prepare_picture

# Chinese-CLIP has 512 positions but was trained on 52 (`context_length` in cn_clip/clip/utils.py, Apache-2.0).
CHINESE_CLIP_CONTEXT = 52
# They pool the last position, be it padding, and were trained on texts of full length ("make sure to set
# padding='max_length' as that's how the model was trained": get_text_features in transformers' modeling_siglip.py).
PADDED_TO_THE_END = {"siglip_text_model", "siglip2_text_model"}


class TransformersClip:
    def __init__(self, folder: Path, device: str) -> None:
        self._device = device
        self._model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        self._model = self._model.to(device).eval()
        processor = transformers.AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, trust_remote_code=False
        )
        self._tokenizer = processor.tokenizer
        # PIL resizes as in training; torchvision, which transformers prefers once it is installed, moves vectors 2e-3.
        self._image_processor = transformers.AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="pil", trust_remote_code=False
        )
        self._pad_to_square = bool(getattr(self._image_processor, "do_center_crop", False))
        self._max_tokens = self._context_length()
        text_model = getattr(self._model.config.text_config, "model_type", "")
        self._padding = "max_length" if text_model in PADDED_TO_THE_END else True
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        prepared = [prepare_picture(image, pad_to_square=self._pad_to_square) for image in images]
        # All that it gives: NaFlex, which keeps a picture's proportions, wants a mask and shapes beside the pixels.
        inputs = self._image_processor(images=prepared, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            features = self._model.get_image_features(**inputs)
        return unit_rows(features.pooler_output.cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        tokens = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            features = self._model.get_text_features(**tokens.to(self._device))
        return unit_rows(features.pooler_output.cpu().numpy())

    def _context_length(self) -> int:
        config = self._model.config
        positions = int(getattr(config.text_config, "max_position_embeddings", 512))
        limit = CHINESE_CLIP_CONTEXT if config.model_type == "chinese_clip" else positions
        return min(limit, positions, int(self._tokenizer.model_max_length))
