"""The generator's training on a few drawn pictures with tiny models: no network, no downloaded weights."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch.nn import functional
from transformers import EfficientNetConfig, EfficientNetModel

from training.alignment import Caption
from training.collect import Product
from training.corpus import REPOSITORY
from training.export import assemble_dual_encoder, save_dual_encoder
from training.features import PictureSet, make_thumbnails
from training.generator.autoencoder import (
    BLOCK,
    AutoencoderSettings,
    fit_projection,
    project_samples,
    to_pixels,
)
from training.generator.captions import (
    COLOURS,
    name_side,
    own_captions,
    recoloured_captions,
    title_in_colour_en,
    title_in_colour_zh,
)
from training.generator.contact_sheet import (
    COLUMNS,
    FontMissingError,
    draw_prompts,
    find_font,
    load_pipeline,
    make_sheet,
)
from training.generator.diffusion import DiffusionSettings, TextConditioner
from training.generator.perception import Perception
from training.generator.pictures import SIDE, Bytes, Look, draw, frame_pictures
from training.generator.samples import Sample
from training.generator.stages import Recipe, train_generator
from training.loop import Loop, LoopSettings, OtherRunError, Stopped
from training.sources import Picture
from training.text_tower import TextTower
from training.vocabulary import build_tokenizer

RED, GREEN = (220, 30, 30), (30, 180, 60)
THINGS = {"红色圆桌": RED, "绿色圆桌": GREEN}
STEPS = 6
RECIPE = Recipe(
    AutoencoderSettings(channels=(4, 4, 4, 8, 8), groups=2, whole_pictures=0.5),
    LoopSettings(batch=4, learning_rate=2e-3, steps=4, warmup=2),
    LoopSettings(batch=4, learning_rate=2e-3, steps=4, warmup=2),
    DiffusionSettings(channels=(8, 16), heads=2, groups=4),
    LoopSettings(batch=4, learning_rate=2e-3, steps=STEPS, warmup=2),
)


@pytest.fixture(scope="module")
def picture_set(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    """A coloured disc on white for each thing, as the catalogue's pictures are: without opacity."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = []
    for name, colour in THINGS.items():
        image = Image.new("RGB", (200, 160), "white")
        ImageDraw.Draw(image).ellipse((40, 50, 160, 110), fill=colour)
        image.save(folder / f"{name}.png")
        pictures.append(Picture("drawn", name, (folder / f"{name}.png").read_bytes, (), (name,)))
    return make_thumbnails("drawn", pictures, folder)


@pytest.fixture(scope="module")
def framed(picture_set: PictureSet, tmp_path_factory: pytest.TempPathFactory) -> Bytes:
    return frame_pictures([picture_set], tmp_path_factory.mktemp("framed") / "pictures.npy")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        Sample(row, Look(mirrored=mirrored, scale=0.9), (Caption(name, 2.0), Caption("圆桌")), 1.0)
        for row, name in enumerate(THINGS)
        for mirrored in (False, True)
    ]


def save_clip(folder: Path, seed: int) -> Path:
    """A dual encoder with random weights and the demo model's text tower and tokenizer."""
    torch.manual_seed(seed)
    config = EfficientNetConfig(
        kernel_sizes=[3], in_channels=[32], out_channels=[16], strides=[2], num_block_repeats=[1], expand_ratios=[1],
        depthwise_padding=[], image_size=32, hidden_dim=1280, hidden_size=1280,  # type: ignore[call-arg]
        width_coefficient=1.0, depth_coefficient=1.0,
    )  # fmt: skip
    tokenizer = build_tokenizer(THINGS, 6000, list)
    tower = TextTower(tokenizer.get_vocab_size(), 16)
    head = torch.nn.Linear(1280, 16, bias=False)
    model = assemble_dual_encoder(EfficientNetModel(config), head, tower, torch.tensor(1.0))
    save_dual_encoder(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "demo-clip", seed=0)


@pytest.fixture(scope="module")
def generator(framed: Bytes, samples: list[Sample], clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that was trained without a pause."""
    work = tmp_path_factory.mktemp("generator")
    train_generator(framed, samples, clip, RECIPE, work, work / "demo-generator")
    return work / "demo-generator"


def test_a_picture_is_cut_out_of_its_ground_and_fills_the_frame(framed: Bytes) -> None:
    assert framed.shape == (len(THINGS), SIDE, SIDE, 4)
    opaque = framed[0, ..., 3] > 127
    assert not opaque[0].any()
    columns = np.flatnonzero(opaque.any(0))
    assert 0.85 * SIDE < columns[-1] - columns[0] < 0.95 * SIDE
    centre = framed[0, SIDE // 2, SIDE // 2]
    np.testing.assert_allclose(centre, (*RED, 255), atol=2)


def test_framing_again_reads_what_is_there(picture_set: PictureSet, tmp_path: Path) -> None:
    file = tmp_path / "pictures.npy"
    first = np.array(frame_pictures([picture_set], file))
    written = file.stat().st_mtime_ns
    assert (frame_pictures([picture_set], file) == first).all()
    assert file.stat().st_mtime_ns == written


def test_a_look_changes_the_colour_and_keeps_the_ground_white(framed: Bytes) -> None:
    blue = next(colour.rgb for colour in COLOURS if "blue" in colour.names_en)
    picture = draw(framed[0], Look(rgb=blue, scale=0.8, shift=(1.0, 0.5)))
    assert (picture[0] == 255).all()
    assert (picture[:, : SIDE // 6] == 255).all()
    red, _, painted_blue = picture[SIDE // 2, int(SIDE * 0.6)].astype(int)
    assert painted_blue > red + 60


def test_captions_say_the_new_colour_and_no_old_one() -> None:
    product = Product("sofa", "蓝色布艺沙发", "Dark blue fabric sofa", "沙发", "Sofa", "沙发")
    red = [caption.text for caption in recoloured_captions(product, COLOURS[0])]
    assert {"红色沙发", "红色的沙发", "红色布艺沙发", "red sofa", "Red fabric sofa"} == set(red)
    assert {"蓝色沙发", "dark blue sofa", "沙发"} <= {caption.text for caption in own_captions(product)}


def test_a_products_own_title_stays_for_the_product_as_it_is() -> None:
    product = Product("sofa", "红色布艺沙发", "Red fabric sofa", "沙发", "Sofa", "沙发")
    red = [caption.text for caption in recoloured_captions(product, COLOURS[0])]
    assert {"红色沙发", "红色的沙发", "red sofa"} == set(red)


def test_captions_name_the_side_in_their_own_language() -> None:
    captions = (Caption("红色圆桌", 2.0), Caption("red table"))
    named = (Caption("红色圆桌 侧面", 2.0), Caption("red table, side view"))
    assert name_side(captions, ("侧面", "side view")) == named


@pytest.mark.parametrize(
    ("title", "coloured"),
    [
        ("白色皮质沙发 金属脚", "红色皮质沙发 金属脚"),
        ("深棕色餐桌", "红色餐桌"),
        ("玻璃花瓶", "红色玻璃花瓶"),
        ("白色衣柜 黑色把手", None),
        ("黑色椅子 白边", None),
        ("彩色玩偶屋", "红色玩偶屋"),
    ],
)
def test_the_colour_of_a_chinese_title_is_replaced_only_where_it_is_the_only_one(
    title: str, coloured: str | None
) -> None:
    assert title_in_colour_zh(title, "红色") == coloured


def test_the_colour_of_an_english_title_is_replaced_only_where_it_is_the_only_one() -> None:
    assert title_in_colour_en("Light green table lamp", "red") == "Red table lamp"
    assert title_in_colour_en("Glass vase", "red") == "red glass vase"
    assert title_in_colour_en("White door with black handle", "red") is None


def test_latents_have_the_variance_of_the_noise_and_keep_shape_and_colour(framed: Bytes, samples: list[Sample]) -> None:
    projection = fit_projection(framed, samples, channels=20, seed=0)
    pixels = to_pixels(np.stack([draw(framed[sample.row], sample.look) for sample in samples]))
    latents = projection(pixels)
    assert latents.shape == (len(samples), 20, SIDE // BLOCK, SIDE // BLOCK)
    assert torch.equal(latents, torch.from_numpy(project_samples(projection, framed, samples)))
    assert float(latents.var((0, 2, 3)).mean()) == pytest.approx(1, rel=0.3)  # fitted to some of them
    # Least squares give back what varies; the mean picture is not in the latents.
    columns = torch.linalg.pinv(projection.weight.flatten(1)) @ latents.flatten(2)
    again = functional.fold(columns, SIDE, BLOCK, stride=BLOCK)
    lost = (pixels - again) - (pixels - again).mean(0, keepdim=True)
    assert lost.square().mean() < 0.05 * pixels.var()
    red, green = (lost[row, :, SIDE // 2, SIDE // 2] for row in (0, 2))
    assert float((red - green).abs().max()) < 0.2


def test_perception_tells_a_blurred_picture_from_the_sharp_one(framed: Bytes) -> None:
    perception = Perception(REPOSITORY / "models" / "demo-clip")
    sharp = to_pixels(np.stack([draw(framed[0], Look())]))
    slightly, much = (functional.avg_pool2d(sharp, size, 1, size // 2, count_include_pad=False) for size in (3, 9))
    assert perception.distance(sharp, sharp) == 0
    assert 0 < perception.distance(slightly, sharp) < perception.distance(much, sharp)
    decoded = much.clone().requires_grad_()
    perception.distance(decoded, sharp).backward()  # type: ignore[no-untyped-call]  # torch has no type here
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0


def test_a_stopped_run_goes_on_to_the_same_weights(
    framed: Bytes, samples: list[Sample], clip: Path, generator: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demo-generator"
    with pytest.raises(Stopped):
        train_generator(framed, samples, clip, RECIPE, tmp_path, out, stop_at=STEPS // 2)
    assert not out.exists()
    train_generator(framed, samples, clip, RECIPE, tmp_path, out)
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        again, uninterrupted = load_file(out / name), load_file(generator / name)
        assert again.keys() == uninterrupted.keys()
        assert all(torch.equal(again[key], uninterrupted[key]) for key in again)


def test_sigterm_writes_a_checkpoint_of_the_finished_step(tmp_path: Path) -> None:
    settings = LoopSettings(batch=1, learning_rate=1e-3, steps=5)
    loop = Loop(torch.nn.Linear(2, 1), settings, tmp_path / "loop.pt", {})

    def loss(step: int, _: float) -> torch.Tensor:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        error: torch.Tensor = loop.model(torch.ones(1, 2)).square().mean()
        return error

    with pytest.raises(Stopped):
        loop.run(loss)
    again = Loop(torch.nn.Linear(2, 1), settings, tmp_path / "loop.pt", {})
    assert again.step == 3
    assert torch.equal(again.model.weight, loop.model.weight)


def test_another_text_encoder_is_refused(framed: Bytes, samples: list[Sample], clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train_generator(framed, samples, clip, RECIPE, tmp_path, tmp_path / "out", stop_at=1)
    other = save_clip(tmp_path / "demo-clip", seed=1)
    with pytest.raises(OtherRunError, match="perception"):  # the first stage that depends on it
        train_generator(framed, samples, other, RECIPE, tmp_path, tmp_path / "out")


def test_a_time_budget_becomes_a_number_of_steps(
    framed: Bytes, samples: list[Sample], clip: Path, tmp_path: Path
) -> None:
    timed = replace(RECIPE, autoencoder_loop=replace(RECIPE.autoencoder_loop, steps=0, minutes=0.01))
    with pytest.raises(Stopped):
        train_generator(framed, samples, clip, timed, tmp_path, tmp_path / "out", stop_at=1)
    state = torch.load(tmp_path / "autoencoder.pt", weights_only=True)
    assert state["step"] == state["total"] > 0


def test_the_exported_folder_draws_the_same_picture_for_the_same_seed(generator: Path) -> None:
    pipeline = load_pipeline(generator)
    assert {type(part).__name__ for part in (pipeline.text_encoder, pipeline.vae)} == {"BertModel", "AutoencoderKL"}
    prompts = ["红色圆桌", "红色圆桌", "red table"]
    first, again, other = (
        [picture.tobytes() for picture in draw_prompts(pipeline, prompts, seeds, num_inference_steps=3)]
        for seeds in ((0, 0, 0), (0, 0, 0), (1, 2, 3))
    )
    assert first == again
    assert first[0] != other[0] != other[1]
    assert pipeline("圆桌", num_inference_steps=2).images[0].size == (SIDE, SIDE)


def test_the_pipeline_encodes_texts_as_training_did(generator: Path, clip: Path) -> None:
    pipeline = load_pipeline(generator)
    texts = ["红色圆桌", ""]
    with torch.no_grad():
        encoded, _ = pipeline.encode_prompt(texts, "cpu", 1, False)
    torch.testing.assert_close(encoded, TextConditioner(clip).encode(texts), atol=2e-2, rtol=0)


def test_a_contact_sheet_shows_all_pictures() -> None:
    try:
        font = find_font()
    except FontMissingError as error:
        pytest.skip(str(error))
    pictures = [Image.new("RGB", (SIDE, SIDE), RED)] * (COLUMNS + 1)
    sheet = np.asarray(make_sheet(pictures, ["红色的沙发"] * (COLUMNS + 1), font))
    assert (sheet == RED).all(2).sum() == SIDE * SIDE * (COLUMNS + 1)
