"""A CLIP is tuned on a few coloured squares: it learns, goes on where it was stopped, and is loaded as any other."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from clients.catalogue_import import CatalogueError
from tests.conftest import create_product, picture
from tests.tiny_models import save_tiny_chinese_clip
from training.finetune_clip import Options, choose_mixture, contrastive_loss, recalls, tune
from training.finetune_pairs import Pair, batch_of, read_pairs, split
from training.loop import Loop, OtherRunError, Stopped
from tuwen.encoders.transformers_clip import TransformersClip

COLOURS = {"红": (220, 20, 20), "绿": (20, 200, 20), "蓝": (20, 20, 220), "黄": (230, 220, 30), "黑": (20, 20, 20)}
THINGS = ["沙发", "桌子", "椅子", "床", "灯", "柜子", "书", "门", "窗", "杯子"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_chinese_clip(tmp_path_factory.mktemp("base") / "clip")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    lines = []
    for colour, rgb in COLOURS.items():
        Image.new("RGB", (40, 40), rgb).save(folder / f"{colour}.png")
        lines += [
            {"sku": f"{colour}{thing}", "title": f"{colour}色{thing}", "image": f"{colour}.png"} for thing in THINGS
        ]
    file = folder / "catalogue.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def options(base: Path, catalogue: Path, tmp_path: Path) -> Options:
    return Options(base, str(catalogue), tmp_path / "tuned", 0, 40, 20, 3e-3, "cpu", 0)


@pytest.mark.parametrize("lora", [0, 4])
def test_what_was_learnt_finds_titles_that_were_kept_out(options: Options, lora: int) -> None:
    options = replace(options, lora=lora, learning_rate=3e-2 if lora else options.learning_rate)
    pairs = read_pairs(options.pairs, "", options.out / "pictures")
    report = tune(options, pairs)
    assert report["share of tuned weights"] > 0
    assert mean(report["after"]) > mean(report["before"]) + 5
    tuned = TransformersClip(options.out, "cpu")
    assert json.loads((options.out / "tuning.json").read_text("utf-8"))["after"] == report["after"]
    kept = split(pairs)
    assert recalls(tuned, kept.to_report, [*kept.to_report, *kept.to_learn]) == pytest.approx(report["after"])


def mean(report: dict[str, float]) -> float:
    return float(np.mean([*report.values()]))


def test_a_run_that_is_stopped_goes_on_to_the_same_weights(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pairs = read_pairs(options.pairs, "", options.out)
    options = replace(options, epochs=4)
    tune(options, pairs)
    stopped = replace(options, out=tmp_path / "stopped")
    run = Loop.run
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "run", lambda loop, loss: run(loop, loss, stop_at=3))
        with pytest.raises(Stopped):
            tune(stopped, pairs)
    tune(stopped, pairs)
    one, other = (torch.load(each.out / "checkpoint.pt")["ema"] for each in (options, stopped))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(OtherRunError):
        tune(replace(stopped, lora=2), pairs)


def test_what_learning_spoilt_is_not_taken(options: Options, base: Path) -> None:
    pairs = read_pairs(options.pairs, "", options.out)
    clip = TransformersClip(base, "cpu")
    weights = {name: each.detach().clone() for name, each in clip.model.state_dict().items()}
    before = clip.encode_texts(["红色沙发"])
    with torch.no_grad():
        for spoilt in clip.model.parameters():
            spoilt.fill_(float("nan"))
    assert choose_mixture(clip, weights, pairs[:10], pairs) == 0
    assert np.allclose(clip.encode_texts(["红色沙发"]), before)


def test_pairs_of_a_service_are_those_of_its_products(api: httpx.Client, tmp_path: Path) -> None:
    create_product(api, "红色沙发", picture("red"))
    create_product(api, "紅色沙發", picture("blue"))
    pairs = read_pairs(str(api.base_url), "", tmp_path / "pictures")
    assert [pair.title for pair in pairs[-2:]] == ["红色沙发", "红色沙发"]
    assert [Image.open(pair.picture).convert("RGB").getpixel((0, 0)) for pair in pairs[-2:]] == [
        (255, 0, 0),
        (0, 0, 255),
    ]
    assert read_pairs(str(api.base_url), "", tmp_path / "pictures") == pairs


def test_no_title_stands_on_two_sides_and_each_pair_comes_once_an_epoch() -> None:
    pairs = [Pair(f"商品{number // 2}", Path(str(number))) for number in range(400)]
    parts = split(pairs)
    titles = [{pair.title for pair in part} for part in parts]
    assert sum(map(len, titles)) == len(set().union(*titles)) == 200
    assert all(len(part) > 10 for part in parts)
    epoch = [pair for step in range(10) for pair in batch_of(step, pairs[:100], 10, 1)]
    assert sorted(pair.picture for pair in epoch) == sorted(pair.picture for pair in pairs[:100])
    assert epoch[:10] == batch_of(0, pairs[:100], 10, 1)
    assert epoch[:10] != batch_of(10, pairs[:100], 10, 1)


def test_pictures_of_one_title_are_no_contrast_to_each_other() -> None:
    def push(titles: list[str]) -> float:
        similarities = torch.tensor([[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 9.0]], requires_grad=True)
        contrastive_loss(similarities, titles).backward()  # type: ignore[no-untyped-call]
        assert similarities.grad is not None
        return float(similarities.grad[0, 1])

    assert push(["a", "c", "b"]) > 0.1
    assert abs(push(["a", "a", "b"])) < 1e-3


def test_too_few_and_unreadable_ones_are_said(options: Options, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="too few"):
        tune(options, read_pairs(options.pairs, "", tmp_path)[:3])
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture()[:40])
    with pytest.raises(CatalogueError, match=r"broken\.png can't be read"):
        tune(options, [Pair(f"商品{number}", broken) for number in range(100)])
