"""Tiny random models in the real on-disk formats, so that the real loading code runs without any hub."""

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
)

CHARACTERS = "红橙黄绿青蓝紫黑白灰棕色的布艺皮质木铁玻璃沙发椅子餐桌书柜床灯三人双单复古现代简约"
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *dict.fromkeys(CHARACTERS + "abcdefghijklmnopqrstuvwxyz0123456789"),
]
VOCABULARY = WORDS + [f"##{word}" for word in WORDS[5:]]


def save_tiny_chinese_clip(folder: Path, *, seed: int = 0, dim: int = 32) -> Path:
    """ChineseCLIPModel, 2 layers × 64, 32-pixel pictures, and its processor."""
    torch.manual_seed(seed)
    layers = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 128}
    config = ChineseCLIPConfig(
        text_config={**layers, "vocab_size": len(VOCABULARY)},
        vision_config={**layers, "image_size": 32, "patch_size": 16},
        projection_dim=dim,
    )
    ChineseCLIPModel(config).save_pretrained(folder)
    image_processor = ChineseCLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    processor = ChineseCLIPProcessor(image_processor, _save_tokenizer(folder))  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def save_tiny_sentence_model(folder: Path, *, seed: int = 0) -> Path:
    """A BERT with mean pooling and normalisation, as sentence-transformers saves it."""
    torch.manual_seed(seed)
    bert_folder = folder.with_name(folder.name + "-bert")
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(bert_folder)
    _save_tokenizer(bert_folder).save_pretrained(bert_folder)
    transformer = Transformer(str(bert_folder), max_seq_length=64)
    SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())]).save(str(folder))
    return folder


def _save_tokenizer(folder: Path) -> BertTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}), encoding="utf-8"
    )
    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(folder)
    return tokenizer
