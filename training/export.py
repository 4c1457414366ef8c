"""Writes the trained models as folders that `AutoModel`, `AutoProcessor` and `SentenceTransformer` load."""

import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    EfficientNetModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
)

from training.text_tower import TextTower
from training.vision import make_image_processor
from training.vocabulary import wrap_for_bert


def assemble_dual_encoder(
    vision: EfficientNetModel, picture_head: nn.Linear, tower: TextTower, scale: Tensor
) -> VisionTextDualEncoderModel:
    """One transformers model of the four parts."""
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, tower.bert.config, projection_dim=picture_head.out_features
    )
    model = VisionTextDualEncoderModel(config, vision_model=vision, text_model=tower.bert)
    with torch.no_grad():
        model.visual_projection.weight.copy_(picture_head.weight)
        model.text_projection.weight.copy_(tower.projection.weight)
        model.logit_scale.copy_(scale)
    model.train(False)
    return model


def save_dual_encoder(model: VisionTextDualEncoderModel, tokenizer: Tokenizer, folder: Path) -> None:
    """float16 weights, image processor and tokenizer in one folder, which is replaced as a whole."""
    with _replaced(folder) as partial:
        model.half()  # type: ignore[no-untyped-call]
        model.save_pretrained(partial)
        model.float()  # type: ignore[no-untyped-call]
        processor = VisionTextDualEncoderProcessor(make_image_processor(), wrap_for_bert(tokenizer))  # type: ignore[no-untyped-call]
        processor.save_pretrained(partial)


def save_static_text_model(word_vectors: Tensor, tokenizer: Tokenizer, folder: Path) -> None:
    """float16 word vectors and tokenizer as a sentence-transformers folder, which is replaced as a whole."""
    static = StaticEmbedding(Tokenizer.from_str(tokenizer.to_str()), embedding_weights=word_vectors.half())
    model = SentenceTransformer(modules=[static, Normalize()], device="cpu")
    with _replaced(folder) as partial:
        model.save(str(partial), create_model_card=False)


class _replaced:  # noqa: N801  # reads as a verb
    """A context with an empty folder that takes the place of `folder` when the block succeeds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(folder.name + ".partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            for file in self.partial.rglob("*.safetensors"):
                file.chmod(0o644)  # safetensors writes for the owner alone
            shutil.rmtree(self.folder, ignore_errors=True)
            self.partial.rename(self.folder)
