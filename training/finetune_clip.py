"""Tunes a CLIP on a catalogue's own titles and pictures, and says what that brings on products it has not seen.

    python -m training.finetune_clip --clip-model MODEL --pairs catalogue.jsonl --out DIR [--lora 16]
    python -m training.finetune_clip --clip-model MODEL --pairs http://127.0.0.1:8000 --out DIR

MODEL is a folder in transformers' format: Chinese-CLIP, CLIP, SigLIP, or the demo's. `--pairs` is a file as
`demo/catalogue.jsonl`, or a service, whose products are read with the key in API_KEY. A tenth of the products is kept
out to report on, another to choose by: between the model as it was and as it is tuned, the mixture of their weights
that finds best there is written, which is the model itself where tuning brought nothing. Stop it when you like: the
same command goes on from the last checkpoint (every 5 minutes, and on Ctrl-C), with the pairs that it began with. All
that is in DIR.run, and may go once the model is written. Then: CLIP_MODEL=DIR, or
`cli.py reindex --clip-model DIR --text-model …`.
"""

import argparse
import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.catalogue_import import CatalogueError
from training.finetune_pairs import DECODED_AT_ONCE, Pair, augmented, batch_of, digest_of, opened, read_pairs, split
from training.finetune_recall import asked_among, choose_mixture, recalls
from training.loop import Loop, LoopSettings, OtherRunError, Stopped
from tuwen.encoders.base import PreparedPicture
from tuwen.encoders.device import choose_device
from tuwen.encoders.fg_clip import is_fg_clip
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.errors import AppError

logger = logging.getLogger(__name__)

MOST_SCALE = 100.0  # of similarities, as in CLIP


@dataclass(frozen=True)
class Options:
    """The command line."""

    clip_model: Path
    pairs: str
    out: Path
    lora: int
    epochs: int
    batch: int
    learning_rate: float
    device: str
    seed: int

    @property
    def run(self) -> Path:
        """What a run goes on from. Not in `out`, all of whose files decide the model's fingerprint."""
        out = self.out.resolve()
        return out.with_name(f"{out.name}.run")


class Trainable(nn.Module):
    """The parameters that are learnt, which alone are averaged and kept in a checkpoint."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parameters_learnt = nn.ParameterList([each for each in model.parameters() if each.requires_grad])


class Tuning:
    """`clip` learns in place."""

    def __init__(self, clip: TransformersClip, pairs: Sequence[Pair], options: Options) -> None:
        self._clip, self._pairs, self._options = clip, pairs, options
        self._model = clip.model
        self._decoders = ThreadPoolExecutor(DECODED_AT_ONCE)
        if options.lora:
            linear = [name for name, module in self._model.named_modules() if isinstance(module, nn.Linear)]
            recipe = peft.LoraConfig(r=options.lora, lora_alpha=2 * options.lora, target_modules=linear)
            self._model = peft.LoraModel(self._model, recipe, "default")
        self._trainable = Trainable(self._model)
        made_from = {"pairs": digest_of(pairs), "model": str(options.clip_model.resolve())}
        made_from |= {name: str(getattr(options, name)) for name in ("lora", "batch", "seed")}
        steps = options.epochs * max(1, len(pairs) // options.batch)
        settings = LoopSettings(options.batch, options.learning_rate, steps=steps, warmup=max(1, steps // 10))
        self._loop = Loop(self._trainable, settings, options.run / "checkpoint.pt", made_from)

    def run(self) -> None:
        """Raises Stopped once its checkpoint is written."""
        self._model.train()
        for module in self._model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # its running means are the model's
                module.eval()
        self._loop.run(self._loss)
        with torch.no_grad():
            for learnt, average in zip(self._trainable.parameters(), self._loop.ema.parameters(), strict=True):
                learnt.copy_(average)
        if self._options.lora:
            self._clip.model = self._model.merge_and_unload()
        self._clip.model.eval()

    def _loss(self, step: int, _: float) -> Tensor:
        torch.manual_seed(self._options.seed * 1_000_003 + step)  # of dropout: a run that goes on is the same
        pairs = batch_of(step, self._pairs, self._options.batch, self._options.seed)
        seeds = range(step * len(pairs), (step + 1) * len(pairs))
        pictures = list(self._decoders.map(self._prepared, pairs, seeds))
        with _half_precision(self._clip.device):
            of_pictures = self._clip.picture_features(pictures)
            of_titles = self._clip.text_features([pair.title for pair in pairs])
        scale = self._clip.model.logit_scale.exp().clamp(max=MOST_SCALE)
        similarities = scale * functional.normalize(of_pictures.float()) @ functional.normalize(of_titles.float()).T
        return contrastive_loss(similarities, [pair.title for pair in pairs])

    def _prepared(self, pair: Pair, seed: int) -> PreparedPicture:
        return self._clip.prepare(augmented(opened(pair.picture), random.Random(seed)))


def contrastive_loss(similarities: Tensor, titles: Sequence[str]) -> Tensor:
    """CLIP's, both ways [pictures, titles]; pictures of one title all fit it, and are no contrast to each other."""
    numbers = {title: number for number, title in enumerate(titles)}
    of = torch.tensor([numbers[title] for title in titles], device=similarities.device)
    fits = (of[:, None] == of[None, :]).float()
    targets = fits / fits.sum(1, keepdim=True)
    return (functional.cross_entropy(similarities, targets) + functional.cross_entropy(similarities.T, targets)) / 2


def _half_precision(device: str) -> AbstractContextManager[Any]:
    """bfloat16, where the device computes in it; its range is that of float32, so that no gradient vanishes."""
    if not device.startswith("cuda"):
        return nullcontext()
    with torch.cuda.device(device):  # of several, which need not be alike
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast("cuda", torch.bfloat16) if is_native else nullcontext()


# --- The command -----------------------------------------------------------------------------------------------------


def save(clip: TransformersClip, base: Path, out: Path, report: Mapping[str, Any]) -> None:
    """In the precision of `base`, with its tokenizer and its way of preparing pictures."""
    config = json.loads((base / "config.json").read_text("utf-8"))
    precision = config.get("dtype") or config.get("torch_dtype") or "float32"  # before transformers 4.56
    clip.model.to(getattr(torch, precision)).save_pretrained(out)
    for file in base.iterdir():
        if file.is_file() and file.suffix in (".json", ".txt", ".model") and not (out / file.name).exists():
            shutil.copy(file, out)
    (out / "tuning.json").write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def tune(options: Options, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Raises Stopped, OtherRunError, CatalogueError."""
    if is_fg_clip(options.clip_model):
        raise CatalogueError("FG-CLIP 2 is not tuned here: it has a text tower of its own for long texts.")
    parts = split(pairs)
    if not parts.to_learn or not parts.to_choose or not parts.to_report:
        raise CatalogueError(f"{len(pairs)} pairs are too few: each of the three parts needs some.")
    clip = TransformersClip(options.clip_model, choose_device(options.device))
    to_report, to_choose = (asked_among(part, parts.to_learn) for part in (parts.to_report, parts.to_choose))
    before = recalls(clip, *to_report)
    weights = {name: each.detach().clone() for name, each in clip.model.state_dict().items()}
    Tuning(clip, parts.to_learn, options).run()
    share = choose_mixture(clip, weights, *to_choose)
    after = recalls(clip, *to_report)
    counts = {name: len(part) for name, part in parts._asdict().items()}
    asked = {name: str(value) for name, value in asdict(options).items()}
    report = {"options": asked, "pairs": counts, "share of tuned weights": share, "before": before, "after": after}
    save(clip, options.clip_model, options.out, report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip-model", type=Path, required=True, help="folder of the model to begin with")
    parser.add_argument("--pairs", required=True, help="a catalogue file, or the address of a service")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the model; DIR.run is the run's")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="learn changes of this rank alone; 0: all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64, help="pairs that are told from each other; more is better")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="for --lora about ten times as much")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--seed", type=int, default=0)
    options = Options(**vars(parser.parse_args()))
    if options.out.resolve() == options.clip_model.resolve():
        parser.error("--out is --clip-model, which would be lost: name a new folder")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        pairs = read_pairs(options.pairs, os.environ.get("API_KEY", ""), options.run)
        report = tune(options, pairs)
    except (AppError, OtherRunError, OSError) as error:
        sys.exit(f"error: {error}")
    except (Stopped, KeyboardInterrupt):  # the latter before the first step, and after the last one
        sys.exit("stopped; the same command goes on from here")
    for name, value in report["before"].items():
        print(f"{name:25} {value:5.1f} → {report['after'][name]:5.1f}")
    print(f"{options.out}: {report['share of tuned weights']:.0%} of the tuned weights; set CLIP_MODEL to it.")


if __name__ == "__main__":
    main()
