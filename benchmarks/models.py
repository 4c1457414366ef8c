"""Which models a benchmark runs on: those that ship, or the sizes of the ones that people use, with random weights.

Speed depends on the architecture alone, and no hub need be reached. Loads torch only to make the latter.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import titles
from tuwen.settings import DEMO_CLIP, PROJECT_ROOT

if TYPE_CHECKING:
    from transformers import BertTokenizer

MODELS = ("demo", "real")
REAL = PROJECT_ROOT / ".work" / "real-sizes"
BGE_SMALL: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 21_128  # of Chinese BERTs
PATCH = 16


def model_settings(models: str) -> dict[str, object]:
    return {"clip_model": str(clip_folder(models)), "text_model": str(text_folder(models))}


def clip_folder(models: str) -> Path:
    return real_clip() if models == "real" else DEMO_CLIP


def text_folder(models: str) -> Path:
    return real_text() if models == "real" else PROJECT_ROOT / "models" / "demo-bge"


def real_clip() -> Path:
    """Chinese-CLIP ViT-B/16: 188 million parameters."""
    folder = REAL / "chinese-clip-vit-b-16"
    if (folder / "config.json").is_file():
        return folder
    import torch  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        ChineseCLIPConfig,
        ChineseCLIPImageProcessorPil,
        ChineseCLIPModel,
        ChineseCLIPProcessor,
    )

    torch.manual_seed(0)
    config = ChineseCLIPConfig(vision_config={"patch_size": PATCH})
    ChineseCLIPProcessor(ChineseCLIPImageProcessorPil(), _tokenizer(folder)).save_pretrained(  # type: ignore[no-untyped-call]
        folder
    )
    ChineseCLIPModel(config).save_pretrained(folder)
    return folder


def real_text() -> Path:
    """BGE-small: 24 million parameters, and the first token's vector; its files as BGE's are published."""
    folder = REAL / "bge-small-zh"
    if (folder / "modules.json").is_file():
        return folder
    import torch  # noqa: PLC0415
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=VOCABULARY, **BGE_SMALL)).save_pretrained(folder)
    _tokenizer(folder).save_pretrained(folder)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": BGE_SMALL["hidden_size"], "pooling_mode_cls_token": True}
    pooling |= {"pooling_mode_mean_tokens": False}
    for path in filter(None, kinds.values()):
        (folder / path).mkdir(exist_ok=True)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": True})
    _write(folder / "modules.json", modules)
    return folder


def plain_clip() -> Path:
    """CLIP with Chinese-CLIP's picture tower, for an engine that hangs on Chinese-CLIP."""
    folder = REAL / "clip-vit-b-16"
    if (folder / "config.json").is_file():
        return folder
    import torch  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )
    from transformers.convert_slow_tokenizer import bytes_to_unicode  # noqa: PLC0415

    torch.manual_seed(0)
    spelled = [f"{byte}{end}" for end in ("", "</w>") for byte in bytes_to_unicode().values()]  # type: ignore[no-untyped-call]
    vocabulary = {token: number for number, token in enumerate([*spelled, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    # Where the engine's older transformers looks for it.
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    _write(folder / "preprocessor_config.json", processor["image_processor"])
    CLIPModel(CLIPConfig(vision_config={"patch_size": PATCH})).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> "BertTokenizer":
    """The catalogue's characters, each a token, as Chinese BERTs have them. The models have room for all of theirs."""
    from transformers import BertTokenizer  # noqa: PLC0415

    characters = sorted({character for title in titles() for character in title.lower() if not character.isspace()})
    folder.mkdir(parents=True, exist_ok=True)
    words = [*SPECIAL, *characters, *(f"##{each}" for each in characters)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    configuration = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    _write(folder / "tokenizer_config.json", configuration)
    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(folder)
    return tokenizer


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")
