"""FG-CLIP 2 as its makers publish it: their files and names of weights, and its arithmetic written out once more.

Names, shapes and formulas are those of modeling_fgclip2.py on the hub (qihoo360/fg-clip2-base, revision 430fbc8a).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, processors
from torch.nn import functional

from tests.tiny_models import save_siglip_tokenizer

Shapes = dict[str, tuple[int, ...]]
Weights = Mapping[str, torch.Tensor]

# Of the hub's config.json and preprocessor_config.json, whose bytes have these digests by git's reckoning.
CONFIG_DIGEST = "2ad35bbec5f7c2120f50294f207e793891dce09d"
PREPROCESSOR_DIGEST = "0b394ef874fa00123ca80d5456646592a052e50e"
PARAMETERS, FILE_BYTES = 383_803_394, 1_535_264_416

COMMON: dict[str, Any] = {
    "attention_dropout": 0.0,
    "dtype": "float32",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-06,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
TEXT = {
    "keep_len": 20,
    "longtext_len": 196,
    "max_position_embeddings": 64,
    "model_type": "fgclip2_text_model",
    "projection_size": 768,
    "vocab_size": 256000,
}
VISION = {"model_type": "fgclip2_vision_model", "num_channels": 3, "num_patches": 256, "patch_size": 16}
CONFIG: dict[str, Any] = {
    "architectures": ["Fgclip2Model"],
    "auto_map": {
        "AutoConfig": "modeling_fgclip2.Fgclip2Config",
        "AutoModelForCausalLM": "modeling_fgclip2.Fgclip2Model",
    },
    "dtype": "float32",
    "initializer_factor": 1.0,
    "model_type": "fgclip2",
    "text_config": COMMON | TEXT,
    "transformers_version": "4.57.0.dev0",
    "vision_config": COMMON | VISION,
}
PREPROCESSOR = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Siglip2ImageProcessorFast",
    "image_std": [0.5, 0.5, 0.5],
    "max_num_patches": 256,
    "patch_size": 16,
    "processor_class": "Siglip2Processor",
    "resample": 2,
    "rescale_factor": 1 / 255,
}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def as_file(configuration: Mapping[str, Any]) -> str:
    return json.dumps(configuration, indent=2, sort_keys=True) + "\n"


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Of all weights that a file of this configuration has."""
    text, vision = config["text_config"], config["vision_config"]
    width = text["hidden_size"]
    shapes: Shapes = {"logit_scale": (1,), "logit_bias": (1,)}
    for head in ("text_model.head", "longtext_head", "boxtext_head"):
        shapes |= _linear(head, width, width)
    embeddings = "text_model.embeddings"
    shapes[f"{embeddings}.token_embedding.weight"] = (text["vocab_size"], width)
    shapes[f"{embeddings}.position_embedding.weight"] = (text["max_position_embeddings"], width)
    for name in ("ori", "res"):
        shapes[f"{embeddings}.position_embedding_{name}.weight"] = (text["longtext_len"], width)
    pixels = vision["num_channels"] * vision["patch_size"] ** 2
    shapes |= _linear("vision_model.embeddings.patch_embedding", vision["hidden_size"], pixels)
    shapes["vision_model.embeddings.position_embedding.weight"] = (vision["num_patches"], vision["hidden_size"])
    for tower, of_tower, last in (
        ("text_model", text, "final_layer_norm"),
        ("vision_model", vision, "post_layernorm"),
    ):
        shapes |= _norm(f"{tower}.{last}", of_tower["hidden_size"])
        for layer in range(of_tower["num_hidden_layers"]):
            shapes |= _layer(f"{tower}.encoder.layers.{layer}", of_tower)
    return shapes | _pooling("vision_model.head", vision) | _pooling("dense_feature_head", vision)


def _linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _mlp(name: str, of_tower: Mapping[str, int]) -> Shapes:
    width, inner = of_tower["hidden_size"], of_tower["intermediate_size"]
    return _linear(f"{name}.fc1", inner, width) | _linear(f"{name}.fc2", width, inner)


def _layer(name: str, of_tower: Mapping[str, int]) -> Shapes:
    width = of_tower["hidden_size"]
    shapes = _mlp(f"{name}.mlp", of_tower) | _norm(f"{name}.layer_norm1", width) | _norm(f"{name}.layer_norm2", width)
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= _linear(f"{name}.self_attn.{projection}", width, width)
    return shapes


def _pooling(name: str, vision: Mapping[str, int]) -> Shapes:
    width = vision["hidden_size"]
    in_projection: Shapes = {
        f"{name}.attention.in_proj_weight": (3 * width, width),
        f"{name}.attention.in_proj_bias": (3 * width,),
    }
    rest = _linear(f"{name}.attention.out_proj", width, width) | _norm(f"{name}.layernorm", width)
    return {f"{name}.probe": (1, 1, width)} | in_projection | rest | _mlp(f"{name}.mlp", vision)


def save_tiny_fg_clip(folder: Path, *, seed: int = 0) -> Path:
    """All of the makers' files but for a small vocabulary and small towers; their Python code ends the process."""
    folder.mkdir()
    vocabulary = save_siglip_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")  # Gemma's knows capitals
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer"}))
    text = CONFIG["text_config"] | TINY | {"projection_size": 64, "vocab_size": vocabulary}
    config = CONFIG | {"text_config": text, "vision_config": CONFIG["vision_config"] | TINY}
    (folder / "config.json").write_text(as_file(config))
    (folder / "preprocessor_config.json").write_text(as_file(PREPROCESSOR))
    (folder / "modeling_fgclip2.py").write_text("raise SystemExit('a model ran code of its own')\n")
    random = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(shape, generator=random) / 2 for name, shape in shapes_of(config).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Formulas:
    """One text or picture at a time, in float64, from the weights by their names."""

    def __init__(self, weights: Weights, config: Mapping[str, Any]) -> None:
        self.weights = {name: weight.double() for name, weight in weights.items()}
        self.text, self.vision = config["text_config"], config["vision_config"]

    def short_text(self, ids: Sequence[int]) -> torch.Tensor:
        return self._linear("text_model.head", self._last(ids, self.weights[_position("")]))

    def long_text(self, ids: Sequence[int]) -> torch.Tensor:
        """Each position from one table or the other: keep_len of the first."""
        first, others = self.weights[_position("_ori")], self.weights[_position("_res")]
        is_first = (torch.arange(len(first)) < self.text["keep_len"])[:, None]
        return self._linear("longtext_head", self._last(ids, first * is_first + others * ~is_first))

    def picture(self, picture: Image.Image, rows: int, columns: int) -> torch.Tensor:
        """Scaled to rows × columns patches; no padding, which the network masks."""
        side = self.vision["patch_size"]
        scaled = picture.resize((columns * side, rows * side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(scaled, np.float64) / 127.5 - 1)
        patches = pixels.reshape(rows, side, columns, side, 3).transpose(1, 2).reshape(rows * columns, -1)
        grid = int(self.vision["num_patches"] ** 0.5)
        positions = self.weights["vision_model.embeddings.position_embedding.weight"].reshape(1, grid, grid, -1)
        resized = functional.interpolate(
            positions.permute(0, 3, 1, 2), (rows, columns), mode="bilinear", align_corners=False, antialias=True
        )
        states = self._linear("vision_model.embeddings.patch_embedding", patches) + resized[0].flatten(1).T
        states = self._tower("vision_model", self.vision, states)
        return self._pool(self._norm("vision_model.post_layernorm", states))

    def _last(self, ids: Sequence[int], positions: torch.Tensor) -> torch.Tensor:
        padded = [*ids, *[0] * (len(positions) - len(ids))]
        states = self.weights["text_model.embeddings.token_embedding.weight"][padded] + positions
        return self._norm("text_model.final_layer_norm", self._tower("text_model", self.text, states))[-1]

    def _tower(self, tower: str, of_tower: Mapping[str, int], states: torch.Tensor) -> torch.Tensor:
        for layer in range(of_tower["num_hidden_layers"]):
            name = f"{tower}.encoder.layers.{layer}"
            normed = self._norm(f"{name}.layer_norm1", states)
            parts = [self._linear(f"{name}.self_attn.{part}_proj", normed) for part in "qkv"]
            attended = _attention(parts, of_tower["num_attention_heads"])
            states = states + self._linear(f"{name}.self_attn.out_proj", attended)
            states = states + self._mlp(f"{name}.mlp", self._norm(f"{name}.layer_norm2", states))
        return states

    def _pool(self, states: torch.Tensor) -> torch.Tensor:
        name = "vision_model.head"
        weights = self.weights[f"{name}.attention.in_proj_weight"].chunk(3)
        biases = self.weights[f"{name}.attention.in_proj_bias"].chunk(3)
        asking = [self.weights[f"{name}.probe"][0], states, states]
        parts = [each @ weight.T + bias for each, weight, bias in zip(asking, weights, biases, strict=True)]
        attended = _attention(parts, self.vision["num_attention_heads"])
        pooled = self._linear(f"{name}.attention.out_proj", attended)
        return (pooled + self._mlp(f"{name}.mlp", self._norm(f"{name}.layernorm", pooled)))[0]

    def _mlp(self, name: str, states: torch.Tensor) -> torch.Tensor:
        inner = self._linear(f"{name}.fc1", states)
        gelu = inner / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
        return self._linear(f"{name}.fc2", gelu)

    def _linear(self, name: str, states: torch.Tensor) -> torch.Tensor:
        return states @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, states: torch.Tensor) -> torch.Tensor:
        centred = states - states.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + COMMON["layer_norm_eps"]).sqrt()
        scaled: torch.Tensor = normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return scaled


def _position(table: str) -> str:
    return f"text_model.embeddings.position_embedding{table}.weight"


def _attention(parts: Sequence[torch.Tensor], heads: int) -> torch.Tensor:
    """[q, width] of queries, keys and values, each head of its own share of the width."""
    answers = []
    for query, key, value in zip(*(part.chunk(heads, dim=-1) for part in parts), strict=True):
        answers.append(torch.softmax(query @ key.T / query.shape[-1] ** 0.5, dim=-1) @ value)
    return torch.cat(answers, dim=-1)
