"""A CLIP is tuned on a few coloured squares: it learns, goes on where it was stopped, and is loaded as any other."""

import json
import os
import shutil
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image

from clients.catalogue_import import CatalogueError
from nlp_models import find_models
from tests.conftest import create_product, picture
from tests.tiny_models import save_tiny_chinese_clip
from training.finetune_clip import Options, _half_precision, contrastive_loss, main, save, tune
from training.finetune_pairs import Pair, _fetched, batch_of, opened, read_pairs, split
from training.finetune_recall import asked_among, choose_mixture, nearer_ones, recalls
from training.loop import Loop, LoopSettings, OtherRunError, Stopped
from tuwen.encoders.base import ModelNames, unit_rows
from tuwen.encoders.transformers_clip import TransformersClip
from tuwen.settings import Settings

COLOURS = {"红": (220, 20, 20), "绿": (20, 200, 20), "蓝": (20, 20, 220), "黄": (230, 220, 30), "黑": (20, 20, 20)}
THINGS = ["沙发", "桌子", "椅子", "床", "灯", "柜子", "书", "门", "窗", "杯子"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_chinese_clip(tmp_path_factory.mktemp("base") / "clip")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    lines = []
    for colour, (red, green, blue) in COLOURS.items():
        for number, thing in enumerate(THINGS):
            name = f"{colour}{number}.png"
            Image.new("RGB", (40, 40), (red + 2 * number, green, blue)).save(folder / name)
            lines.append({"sku": f"{colour}{thing}", "title": f"{colour}色{thing}", "image": name})
    file = folder / "catalogue.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def options(base: Path, catalogue: Path, tmp_path: Path) -> Options:
    return Options(base, str(catalogue), tmp_path / "tuned", 0, 40, 20, 3e-3, "cpu", 0)


@pytest.mark.parametrize("lora", [0, 4])
def test_what_was_learnt_finds_titles_that_were_kept_out(
    options: Options, base: Path, lora: int, tiny_models: Mapping[str, str]
) -> None:
    options = replace(options, lora=lora, learning_rate=3e-2 if lora else options.learning_rate)
    pairs = read_pairs(options.pairs, "", options.run)
    report = tune(options, pairs)
    assert report["share of tuned weights"] > 0
    assert mean(report["after"]) > mean(report["before"]) + 5
    tuned = TransformersClip(options.out, "cpu")
    assert json.loads((options.out / "tuning.json").read_text("utf-8"))["after"] == report["after"]
    kept = split(pairs)
    assert recalls(tuned, kept.to_report, [*kept.to_report, *kept.to_learn]) == pytest.approx(report["after"])
    names = ModelNames(str(options.out), tiny_models["TEXT_MODEL"])
    fingerprint = find_models(names, Settings(_env_file=None)).fingerprint
    assert {file.name for file in options.run.iterdir()} == {"checkpoint.pt", "pairs.json"}
    shutil.rmtree(options.run)
    assert find_models(names, Settings(_env_file=None)).fingerprint == fingerprint
    untuned = {name: each.clone() for name, each in TransformersClip(base, "cpu").model.state_dict().items()}
    with torch.no_grad():
        tuned.model.logit_scale.fill_(float("inf"))  # which no search looks at
    assert choose_mixture(tuned, untuned, *asked_among(kept.to_choose, kept.to_learn)) == 0
    assert tuned.model.logit_scale.isfinite()


def mean(report: dict[str, float]) -> float:
    return float(np.mean([*report.values()]))


def test_a_run_that_is_stopped_goes_on_to_the_same_weights(
    options: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pairs = read_pairs(options.pairs, "", options.run)
    options = replace(options, epochs=4)
    tune(options, pairs)
    stopped = replace(options, out=tmp_path / "stopped")
    run = Loop.run
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "run", lambda loop, loss: run(loop, loss, stop_at=3))
        with pytest.raises(Stopped):
            tune(stopped, pairs)
    tune(stopped, pairs)
    one, other = (torch.load(each.run / "checkpoint.pt")["ema"] for each in (options, stopped))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for other_run in (replace(stopped, lora=2), replace(stopped, batch=10), replace(stopped, seed=1)):
        with pytest.raises(OtherRunError):
            tune(other_run, pairs)
    with pytest.raises(OtherRunError):  # as many, but others
        tune(stopped, [replace(pair, title=f"大{pair.title}") for pair in pairs])


def test_a_run_that_goes_on_has_the_pairs_that_it_began_with(catalogue: Path, tmp_path: Path) -> None:
    own = tmp_path / "catalogue" / "catalogue.jsonl"
    shutil.copytree(catalogue.parent, own.parent)
    pairs = read_pairs(str(own), "", tmp_path / "run")
    lines = own.read_text("utf-8").splitlines()
    own.write_text("\n".join([*lines[1:], lines[1]]), encoding="utf-8")
    assert read_pairs(str(own), "", tmp_path / "run") == pairs
    assert read_pairs(str(own), "", tmp_path / "another") != pairs
    with pytest.raises(OtherRunError, match=r"was read from .*catalogue\.jsonl; remove"):
        read_pairs(str(catalogue), "", tmp_path / "run")


def test_what_learning_spoilt_is_not_taken(base: Path, catalogue: Path, tmp_path: Path) -> None:
    pairs = read_pairs(str(catalogue), "", tmp_path)
    clip = TransformersClip(base, "cpu")
    weights = {name: each.detach().clone() for name, each in clip.model.state_dict().items()}
    before = clip.encode_texts(["红色沙发"])
    with torch.no_grad():
        for spoilt in clip.model.parameters():
            spoilt.fill_(float("nan"))
    assert choose_mixture(clip, weights, pairs[:10], pairs) == 0
    assert np.allclose(clip.encode_texts(["红色沙发"]), before)
    with torch.no_grad():
        for spoilt in clip.model.parameters():
            spoilt.fill_(0)  # which tells nothing apart, so that all is as near
    assert set(recalls(clip, pairs[:10], pairs).values()) == {0}


def test_a_rank_is_by_all_that_is_as_near_or_nearer(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    candidates = unit_rows(chance.normal(size=(5_000, 16)))
    of = np.arange(5_000) // 2
    queries = candidates[:2_000] + chance.normal(size=(2_000, 16)).astype(np.float32)
    tracemalloc.start()
    counts = nearer_ones(queries, candidates, of)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30_000_000  # all cosines at once are 40 MB, and their order is 80
    for number in (0, 255, 256, 1_999):
        cosines = candidates @ queries[number]
        pair = [number // 2 * 2, number // 2 * 2 + 1]
        assert abs(counts[number] - (cosines > cosines[pair].max()).sum()) <= 1
    assert nearer_ones(np.ones((2, 4), np.float32), np.ones((20, 4), np.float32), of[:20]).tolist() == [18, 18]


def test_a_report_on_a_large_catalogue_takes_no_longer() -> None:
    pairs = [Pair(f"商品{number}", Path(str(number)), str(number)) for number in range(100_000)]
    asked, among = asked_among(pairs[:10_000], pairs[10_000:])
    assert (len(asked), len(among)) == (2_000, 5_000)
    assert among[: len(asked)] == asked
    assert (set(asked), set(among)) == (set(asked) & set(pairs[:10_000]), set(among) & set(pairs))
    assert asked_among(pairs[:3], pairs[:2])[1] != []
    batch_of(0, pairs, 64, 1)
    begun = time.thread_time()
    for step in range(1, 21):
        batch_of(step, pairs, 64, 1)
    assert time.thread_time() - begun < 0.1


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
    pairs = [Pair(f"商品{number // 2}", Path(str(number)), str(number)) for number in range(400)]
    parts = split(pairs)
    titles = [{pair.title for pair in part} for part in parts]
    assert sum(map(len, titles)) == len(set().union(*titles)) == 200
    assert all(len(part) > 10 for part in parts)
    epoch = [pair for step in range(10) for pair in batch_of(step, pairs[:100], 10, 1)]
    assert sorted(pair.picture for pair in epoch) == sorted(pair.picture for pair in pairs[:100])
    assert epoch[:10] == batch_of(0, pairs[:100], 10, 1)
    assert epoch[:10] != batch_of(10, pairs[:100], 10, 1)


def test_no_picture_stands_on_two_sides() -> None:
    """Nor where it joins two titles: of four products each, the second and the third show one picture."""
    shown = [number - number % 4 + (0, 1, 1, 2)[number % 4] for number in range(1_600)]
    pairs = [Pair(f"商品{number // 2}", Path(str(number)), str(pixels)) for number, pixels in enumerate(shown)]
    parts = split(pairs)
    for of in ("title", "pixels"):
        found = [{getattr(pair, of) for pair in part} for part in parts]
        assert sum(map(len, found)) == len(set().union(*found))
    assert all(len(part) > 100 for part in parts)
    same_picture = [Pair(f"商品{number}", Path("none"), "none") for number in range(40)]
    parts = split([*pairs[:100], *same_picture])
    assert set(same_picture) <= set(parts.to_learn)


def test_pictures_of_one_title_are_no_contrast_to_each_other() -> None:
    def push(titles: list[str]) -> float:
        similarities = torch.tensor([[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 9.0]], requires_grad=True)
        contrastive_loss(similarities, titles).backward()  # type: ignore[no-untyped-call]
        assert similarities.grad is not None
        return float(similarities.grad[0, 1])

    assert push(["a", "c", "b"]) > 0.1
    assert abs(push(["a", "a", "b"])) < 1e-3


def test_too_few_are_said(options: Options) -> None:
    with pytest.raises(CatalogueError, match="too few"):
        tune(options, read_pairs(options.pairs, "", options.run)[:3])


def test_pictures_are_read_as_the_service_reads_them_and_others_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.png").write_bytes(picture()[:40])
    (tmp_path / "no_end.jpg").write_bytes(picture("blue", image_format="JPEG")[:-2])
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(tmp_path / "phone.heic")
    names = ["broken.png", "missing.png", "no_end.jpg", "phone.heic"]
    lines = [json.dumps({"sku": name, "title": "沙发", "image": name}) for name in names]
    (tmp_path / "catalogue.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pairs = read_pairs(str(tmp_path / "catalogue.jsonl"), "", tmp_path / "run")
    assert [pair.picture.name for pair in pairs] == ["no_end.jpg", "phone.heic"]
    assert [opened(pair.picture).size for pair in pairs] == [(64, 48), (64, 48)]
    assert "2 pictures can't be read" in caplog.text
    (tmp_path / "catalogue.jsonl").write_text(lines[0], encoding="utf-8")
    with pytest.raises(CatalogueError, match="no product with a picture"):
        read_pairs(str(tmp_path / "catalogue.jsonl"), "", tmp_path / "empty")


def test_the_key_goes_to_the_service_alone(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(404 if "gone" in request.url.path else 200, content=picture())

    headers = {"Authorization": "Bearer secret"}
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://shop/api", headers=headers) as client:
        with pytest.raises(CatalogueError, match="at another address"):
            _fetched(client, "http://elsewhere/images/1.png", tmp_path)
        assert asked == []
        assert _fetched(client, "/images/1.png", tmp_path).read_bytes() == picture()
        assert _fetched(client, "http://shop/api/images/2.png", tmp_path).exists()
        assert not _fetched(client, "/images/gone.png", tmp_path).exists()
    assert {request.url.host for request in asked} == {"shop"}


def test_a_model_keeps_its_precision_by_its_older_name_too(base: Path, tmp_path: Path) -> None:
    older = shutil.copytree(base, tmp_path / "older")
    config = json.loads((older / "config.json").read_text("utf-8"))
    del config["dtype"]
    (older / "config.json").write_text(json.dumps({**config, "torch_dtype": "float16"}), encoding="utf-8")
    save(TransformersClip(older, "cpu"), older, tmp_path / "out", {})
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["dtype"] == "float16"


def test_the_device_that_computes_is_asked_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        current: str | None = None

        def __init__(self, name: str) -> None:
            self._name = name

        def __enter__(self) -> None:
            Device.current = self._name

        def __exit__(self, *_: object) -> None:
            Device.current = None

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: Device.current == "cuda:1")
    half = nullcontext("bfloat16")
    monkeypatch.setattr(torch, "autocast", lambda *_: half)
    assert _half_precision("cuda:1") is half
    assert all(_half_precision(other) is not half for other in ("cuda:0", "cpu"))


def test_a_checkpoint_of_a_device_that_is_gone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loop() -> Loop[torch.nn.Linear]:
        return Loop(torch.nn.Linear(2, 1), LoopSettings(1, 1e-3, steps=2), tmp_path / "checkpoint.pt", {})

    written = loop()
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda _: "cuda:1")
        with pytest.raises(Stopped):
            written.run(lambda step, _: written.model(torch.ones(1, 2)).sum(), stop_at=1)
    assert loop().step == 1


def test_the_model_to_begin_with_is_not_written_over(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    again = base / ".." / base.name
    monkeypatch.setattr(sys, "argv", ["tune", f"--clip-model={base}", "--pairs=none.jsonl", f"--out={again}"])
    with pytest.raises(SystemExit):
        main()
    assert "name a new folder" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step_is_no_traceback(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pairs")  # which is read until the signal comes
    argv = ["tune", f"--clip-model={base}", f"--pairs={tmp_path / 'pairs'}", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", argv)
    ended, main_thread = threading.Event(), threading.get_ident()

    def interrupt() -> None:
        with (tmp_path / "pairs").open("w"):  # once it is read
            signal.pthread_kill(main_thread, signal.SIGALRM)
            ended.wait(60)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(SystemExit, match="the same command goes on"):
            main()
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGALRM, before)
