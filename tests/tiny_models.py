"""Tiny random models in the real on-disk formats, so that the real loading code runs without any hub."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
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
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

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


SIGLIP_LAYERS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SIGLIP_CONTEXT = 32


def save_tiny_siglip(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP, as well as SigLIP 2 at a fixed resolution, which has the same architecture: 32-pixel pictures."""
    torch.manual_seed(seed)
    tokenizer = _siglip_tokenizer()
    text = _siglip_text(tokenizer)
    vision = {**SIGLIP_LAYERS, "image_size": 32, "patch_size": 16}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    image_processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    SiglipProcessor(image_processor, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def save_tiny_naflex(folder: Path, *, seed: int = 0) -> Path:
    """SigLIP 2 that keeps a picture's proportions (NaFlex): as many 16-pixel patches as it likes, up to 16."""
    torch.manual_seed(seed)
    tokenizer = _siglip_tokenizer()
    text = _siglip_text(tokenizer)
    vision = {**SIGLIP_LAYERS, "num_patches": 16, "patch_size": 16}
    Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)).save_pretrained(folder)
    image_processor = Siglip2ImageProcessorPil(max_num_patches=16, patch_size=16)
    Siglip2Processor(image_processor, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def save_siglip_tokenizer(folder: Path) -> int:
    """`tokenizer.json` alone; how many words it knows."""
    tokenizer = _siglip_tokenizer()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return len(tokenizer)


def _siglip_text(tokenizer: Siglip2Tokenizer) -> dict[str, int]:
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return {**SIGLIP_LAYERS, **tokens, "max_position_embeddings": SIGLIP_CONTEXT}


def _siglip_tokenizer() -> Siglip2Tokenizer:
    """Gemma's, which spells what it has no piece for in bytes; padded on the right and without a mask, as published."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(CHARACTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return Siglip2Tokenizer(
        vocabulary,
        merges=[],
        model_max_length=SIGLIP_CONTEXT,
        padding_side="right",
        model_input_names=["input_ids"],
    )


def save_tiny_sentence_model(
    folder: Path, *, seed: int = 0, prompts: dict[str, str] | None = None, default_prompt_name: str | None = None
) -> Path:
    """A BERT with mean pooling and normalisation, as sentence-transformers saves it, with its prompts."""
    torch.manual_seed(seed)
    bert_folder = folder.with_name(folder.name + "-bert")
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(bert_folder)
    _save_tokenizer(bert_folder).save_pretrained(bert_folder)
    transformer = Transformer(str(bert_folder), max_seq_length=64)
    modules = [transformer, Pooling(transformer.get_embedding_dimension())]
    SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name=default_prompt_name).save(str(folder))
    return folder


def save_tiny_stable_diffusion(folder: Path, *, seed: int = 0) -> Path:
    """The family of Stable Diffusion 1 and 2: one CLIP text encoder, 64-pixel pictures."""
    torch.manual_seed(seed)
    return _save_stable_diffusion(
        folder, CLIPTextModel(_clip_text_config()), _clip_tokenizer(folder / "clip-tokenizer")
    )


def save_tiny_chinese_stable_diffusion(folder: Path, *, seed: int = 0) -> Path:
    """Taiyi's layout: Stable Diffusion with a BERT of Chinese words as its text encoder."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    tokenizer = _save_tokenizer(folder / "bert-tokenizer")
    tokenizer.model_max_length = 32
    return _save_stable_diffusion(folder, BertModel(config), tokenizer)


def _save_stable_diffusion(folder: Path, text_encoder: Any, tokenizer: Any) -> Path:
    pipeline: Any = StableDiffusionPipeline(
        vae=_tiny_autoencoder(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**TINY_UNET, cross_attention_dim=32),
        scheduler=DDIMScheduler(**STABLE_DIFFUSION_SCHEDULE, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_stable_diffusion_xl(folder: Path, *, seed: int = 0) -> Path:
    """SDXL: two text encoders, and pooled text and sizes beside the time step."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **TINY_UNET,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,  # 6 sizes × 8, and 32 of the pooled text
    )
    pipeline: Any = StableDiffusionXLPipeline(
        vae=_tiny_autoencoder(),
        text_encoder=CLIPTextModel(_clip_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_text_config()),
        tokenizer=_clip_tokenizer(folder / "clip-tokenizer"),
        tokenizer_2=_clip_tokenizer(folder / "clip-tokenizer"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**STABLE_DIFFUSION_SCHEDULE),
    )
    pipeline.save_pretrained(folder)
    return folder


TINY_UNET: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "sample_size": 32,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}
STABLE_DIFFUSION_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def _tiny_autoencoder() -> AutoencoderKL:
    """Two pixels of a picture to one of the latent."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=4,
    )


def _clip_text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(CLIP_VOCABULARY),
        hidden_size=32,
        projection_dim=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=len(CLIP_VOCABULARY) - 1,
    )


# CLIP's tokenizer spells in bytes; one at a word's end is a token of its own.
BYTES: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
CLIP_VOCABULARY = [
    *(f"{character}{end}" for end in ("", "</w>") for character in BYTES.values()),
    "<|startoftext|>",
    "<|endoftext|>",
]


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(CLIP_VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def _save_tokenizer(folder: Path) -> BertTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}), encoding="utf-8"
    )
    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(folder)
    return tokenizer
