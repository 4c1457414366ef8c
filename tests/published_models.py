"""Models as their makers publish them: each one's files, layout and sizes, with few layers and random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers import decoders as tokenizers_decoders
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.tiny_models import CHARACTERS, VOCABULARY

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
QWEN_INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
MODULES = "sentence_transformers.models"
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 1}
BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 1}
HUGE = {"hidden_size": 1280, "num_attention_heads": 16, "intermediate_size": 5120, "num_hidden_layers": 1}


def save_chinese_clip_large_336(folder: Path) -> Path:
    """OFA-Sys/chinese-clip-vit-large-patch14-336px."""
    return _save_chinese_clip(folder, text=BASE, vision=LARGE, side=336, dim=768)


def save_chinese_clip_huge(folder: Path) -> Path:
    """OFA-Sys/chinese-clip-vit-huge-patch14."""
    return _save_chinese_clip(folder, text=LARGE, vision=HUGE, side=224, dim=1024)


def _save_chinese_clip(folder: Path, *, text: dict[str, int], vision: dict[str, int], side: int, dim: int) -> Path:
    """With a picture processor of the old name and no file of a tokenizer's settings, and pickled weights."""
    torch.manual_seed(0)
    config = ChineseCLIPConfig(
        text_config={**text, "vocab_size": len(VOCABULARY)},
        vision_config={**vision, "image_size": side, "patch_size": 14},
        projection_dim=dim,
    )
    folder.mkdir()
    torch.save(ChineseCLIPModel(config).state_dict(), folder / "pytorch_model.bin")
    config.architectures = ["ChineseCLIPModel"]
    config.save_pretrained(folder)
    size = {"height": side, "width": side}
    pixels = {"do_resize": True, "size": size, "resample": 3, "do_center_crop": False, "crop_size": size}
    pixels |= {"do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "do_convert_rgb": True}
    pixels |= {"feature_extractor_type": "ChineseCLIPFeatureExtractor"}
    _write(folder / "preprocessor_config.json", pixels)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return folder


def save_bge_large_zh(folder: Path) -> Path:
    """BAAI/bge-large-zh-v1.5."""
    torch.manual_seed(0)
    folder.mkdir()
    config = BertConfig(**LARGE, vocab_size=len(VOCABULARY), architectures=["BertModel"])  # type: ignore[arg-type]
    torch.save(BertModel(config).state_dict(), folder / "pytorch_model.bin")
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    BertTokenizer.from_pretrained(folder, model_max_length=512).save_pretrained(folder)
    _save_modules(folder, pooling="cls", dim=1024, normalize=True)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": True})
    _write(folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.2.2"}})
    return folder


def save_bge_m3(folder: Path) -> Path:
    """BAAI/bge-m3: XLM-RoBERTa, and two heads beside it that are none of sentence-transformers' modules."""
    torch.manual_seed(0)
    folder.mkdir()
    size = _save_xlm_roberta_tokenizer(folder)
    shape = {**LARGE, "vocab_size": size, "max_position_embeddings": 8194, "type_vocab_size": 1}
    config = XLMRobertaConfig(**shape, pad_token_id=1, architectures=["XLMRobertaModel"])  # type: ignore[arg-type]
    torch.save(XLMRobertaModel(config).state_dict(), folder / "pytorch_model.bin")
    config.save_pretrained(folder)
    torch.save({"weight": torch.zeros(1, 1024)}, folder / "sparse_linear.pt")
    _save_modules(folder, pooling="cls", dim=1024, normalize=True)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 8192, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.2.2"}})
    return folder


def _save_xlm_roberta_tokenizer(folder: Path) -> int:
    """The number of its pieces."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *dict.fromkeys(CHARACTERS), *"abcdefghijklmnopqrstuvwxyz", "<mask>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", marks)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
    names |= {"sep_token": "</s>", "mask_token": "<mask>", "tokenizer_class": "XLMRobertaTokenizer"}
    _write(folder / "tokenizer_config.json", {**names, "model_max_length": 8192})
    return len(pieces)


def save_bge_reranker(folder: Path, *, labels: int = 1) -> Path:
    """BAAI/bge-reranker-v2-m3, narrower: what is new is its head."""
    torch.manual_seed(0)
    folder.mkdir()
    size = _save_xlm_roberta_tokenizer(folder)
    shape = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2}
    shape |= {"vocab_size": size, "max_position_embeddings": 8194, "type_vocab_size": 1, "num_labels": labels}
    config = XLMRobertaConfig(**shape, pad_token_id=1, initializer_range=0.3)  # type: ignore[arg-type]
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_qwen3_embedding(folder: Path) -> Path:
    """Qwen/Qwen3-Embedding-0.6B: bfloat16, grouped heads, and a tokenizer that ends each text."""
    torch.manual_seed(0)
    folder.mkdir()
    byte_tokens = list(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    vocabulary = {token: number for number, token in enumerate(byte_tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers_decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    end = ("<|endoftext|>", len(byte_tokens))
    template = processors.TemplateProcessing("$A <|endoftext|>", "$A $B:1 <|endoftext|>:1", [end])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    _write(folder / "tokenizer_config.json", {**names, "model_max_length": 131072, "unk_token": None})
    shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 1, "num_attention_heads": 16}
    shape |= {"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 32768}
    config = Qwen3Config(**shape, vocab_size=len(byte_tokens) + 2)  # type: ignore[arg-type]
    Qwen3Model(config).bfloat16().save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written |= {"architectures": ["Qwen3ForCausalLM"], "rope_theta": 1_000_000, "rope_scaling": None}
    written.pop("rope_parameters", None)  # as transformers 5 writes them
    _write(folder / "config.json", written)
    _save_modules(folder, pooling="lasttoken", dim=1024, normalize=True)
    prompts = {"query": QWEN_INSTRUCTION, "document": ""}
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    return folder


def _save_modules(folder: Path, *, pooling: str, dim: int, normalize: bool) -> None:
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    modules = [
        {"idx": number, "name": f"{number}", "path": path, "type": f"{MODULES}.{name}"}
        for number, (path, name) in enumerate(steps)
    ]
    _write(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    known = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
    modes = {f"pooling_mode_{name}": how == pooling for how, name in known.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **modes, "include_prompt": True})


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
