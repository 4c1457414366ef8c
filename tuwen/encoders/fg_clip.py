"""FG-CLIP 2 of 360's research (github.com/360CVGroup/FG-CLIP, Apache-2.0), without the code that its folders bring.

Its towers are SigLIP 2's, as transformers has them; a long text has positions and a head of its own. The heads for
regions and for places of a picture stay in the file. Sources named below are the makers' files on the hub
(qihoo360/fg-clip2-base) and in their repository.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from tuwen.encoders.base import PreparedPicture
from tuwen.encoders.picture import prepare_picture
from tuwen.encoders.transformers_clip import TransformersClip

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

MODEL_TYPE = "fgclip2"
WEIGHTS = "model.safetensors"
# Of Fgclip2Model in modeling_fgclip2.py: what no search takes. Training adds scales of other names (train_fgclip2.py).
UNUSED = ("boxtext_head.", "dense_feature_head.", "logit_bias", "logit_scale")
# The patches that a picture is scaled to, by those that it has (determine_max_value in the model card).
PATCH_BUDGETS = (128, 256, 576, 784, 1024)
# Gemma's, beside which training took no mask (`.input_ids` alone, and attention_mask=None, in train_fgclip2.py).
TOKENIZER: Mapping[str, Any] = {"pad_token": "<pad>", "padding_side": "right", "model_input_names": ["input_ids"]}


def open_clip(folder: Path, device: str, dtype: torch.dtype = torch.float32) -> TransformersClip:
    """By whatever family the folder's configuration names."""
    return (FgClip if is_fg_clip(folder) else TransformersClip)(folder, device, dtype)


def is_fg_clip(folder: Path) -> bool:
    """A configuration that can't be read is complained of by transformers."""
    try:
        return bool(_configuration(folder)["model_type"] == MODEL_TYPE)
    except (OSError, ValueError, LookupError, TypeError):
        return False


class FgClip(TransformersClip):
    """A text of up to 64 tokens is a short one, any other a long one of at most 196, as the model card has it.

    So is each picture scaled by its own size, up to 1,024 patches: that of what it is given, which the service has cut
    down to `DECODE_SIDE` before. Neither depends on what stands beside it.
    """

    def prepare(self, image: Image.Image) -> PreparedPicture:
        prepared = prepare_picture(image, pad_to_square=self.pad_to_square)
        budget = patch_budget(*prepared.size, self.image_processor.patch_size)
        return dict(self.image_processor(images=[prepared], max_num_patches=budget, return_tensors="np"))

    def picture_features(self, pictures: Sequence[PreparedPicture]) -> torch.Tensor:
        return _by_kind(pictures, lambda picture: picture["pixel_values"].shape[1], super().picture_features)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        return _by_kind(texts, self._is_long, super().text_features)

    def tokenize(self, texts: Sequence[str]) -> transformers.BatchEncoding:
        """As long texts, if one of them is long."""
        is_long = any(map(self._is_long, texts))
        tokens: transformers.BatchEncoding = self.tokenizer(
            [text.lower() for text in texts],  # as in training
            padding="max_length",
            truncation=True,
            max_length=self._max_tokens if is_long else self.model.short_len,
            return_tensors="pt",
        )
        return tokens

    def _is_long(self, text: str) -> bool:
        ids: list[int] = self.tokenizer(text.lower())["input_ids"]
        return len(ids) > int(self.model.short_len)

    def _load_model(self, folder: Path) -> torch.nn.Module:
        return load_fg_clip(folder).to(self._dtype)

    def _load_tokenizer(self, folder: Path) -> Any:
        # As published: transformers would rebuild it by the rules of the class that the folder names.
        return transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"), **TOKENIZER
        )

    def _load_image_processor(self, folder: Path) -> Any:
        return transformers.Siglip2ImageProcessorPil.from_pretrained(folder)

    def _context_length(self) -> int:
        return int(self.model.long_len)


class FgClip2(torch.nn.Module):
    """The towers, and what is added to them for long texts, by the names in the makers' files."""

    def __init__(self, config: transformers.Siglip2Config) -> None:
        super().__init__()
        self.config: Any = config
        text: Any = config.text_config
        self.short_len = int(text.max_position_embeddings)
        self.keep_len = int(text.keep_len)
        self.long_len = int(text.longtext_len)
        self.text_model: Any = transformers.Siglip2TextModel(text)
        self.vision_model: Any = transformers.Siglip2VisionModel(config.vision_config)  # type: ignore[arg-type]
        for name in ("position_embedding_ori", "position_embedding_res"):
            self.text_model.embeddings.add_module(name, torch.nn.Embedding(self.long_len, text.hidden_size))
        self.longtext_head = torch.nn.Linear(text.hidden_size, text.hidden_size)

    def get_image_features(self, **inputs: torch.Tensor) -> Any:
        return self.vision_model(**inputs)

    def get_text_features(self, input_ids: torch.Tensor) -> Any:
        """[n, short_len] or [n, long_len], by which a text is a short or a long one."""
        if input_ids.shape[1] <= self.short_len:
            return self.text_model(input_ids=input_ids)
        text = self.text_model
        # The first positions are those of short texts once more, the others were stretched from theirs for training.
        first = text.embeddings.position_embedding_ori.weight[: self.keep_len]
        others = text.embeddings.position_embedding_res.weight[self.keep_len :]
        tokens = text.embeddings.token_embedding(input_ids) + torch.cat([first, others])
        states = text.final_layer_norm(text.encoder(inputs_embeds=tokens, attention_mask=None).last_hidden_state)
        # The last position, be it padding, as of short texts.
        return transformers.modeling_outputs.BaseModelOutputWithPooling(
            last_hidden_state=states, pooler_output=self.longtext_head(states[:, -1])
        )


def load_fg_clip(folder: Path) -> FgClip2:
    """On the processor, as precise as its file. Raises ValueError for weights of other names or shapes."""
    configuration = _configuration(folder)
    text, vision = (dict(configuration[f"{tower}_config"]) for tower in ("text", "vision"))
    for tower in (text, vision):
        tower.pop("model_type", None)  # the makers', by whose name transformers knows nothing
    # On "meta" no random weights are made, only to be thrown away.
    with torch.device("meta"):
        model = FgClip2(transformers.Siglip2Config(text_config=text, vision_config=vision))
    weights = _weights(folder)
    _require_same(weights, model.state_dict())
    model.load_state_dict(weights, assign=True)
    # No weights, so in no file.
    model.text_model.embeddings.position_ids = torch.arange(model.short_len)[None]
    return model


def patch_budget(width: int, height: int, patch_size: int) -> int:
    """Patches, for a picture of so many pixels."""
    patches = (width // patch_size) * (height // patch_size)
    return next((budget for budget in PATCH_BUDGETS if patches <= budget), PATCH_BUDGETS[-1])


def _configuration(folder: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return configuration


def _weight_files(folder: Path) -> list[Path]:
    """No others that lie beside them: a copy in another precision, or of other steps of the training."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    try:
        index: dict[str, Any] = json.loads((folder / f"{WEIGHTS}.index.json").read_text(encoding="utf-8"))
        return [folder / Path(name).name for name in sorted(set(index["weight_map"].values()))]
    except FileNotFoundError:
        raise ValueError(f"it has no {WEIGHTS}") from None


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = chain.from_iterable(load_file(file).items() for file in _weight_files(folder))
    return {name: weight for name, weight in weights if not name.startswith(UNUSED)}


def _require_same(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    both = weights.keys() & expected.keys()
    wrong = {
        "missing": expected.keys() - both,
        "unknown": weights.keys() - both,
        "of another shape": {name for name in both if weights[name].shape != expected[name].shape},
    }
    found = [f"{len(names)} {what} ({min(names)})" for what, names in wrong.items() if names]
    if found:
        raise ValueError(f"its weights are not those of an FG-CLIP 2 of its configuration: {', '.join(found)}")


def _by_kind(
    items: Sequence[Item], kind_of: Callable[[Item], Key], compute: Callable[[Sequence[Item]], torch.Tensor]
) -> torch.Tensor:
    """[n, dim] in the order of the items, `compute`d together with those of their kind."""
    kinds: dict[Key, list[int]] = {}
    for position, item in enumerate(items):
        kinds.setdefault(kind_of(item), []).append(position)
    features = torch.cat([compute([items[position] for position in of_kind]) for of_kind in kinds.values()])
    return features[torch.argsort(torch.tensor(list(chain.from_iterable(kinds.values()))))]
