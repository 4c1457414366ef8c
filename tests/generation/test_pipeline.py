"""Drawing itself, on tiny pipelines of three families in their real formats."""

from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from tests.tiny_models import (
    save_tiny_chinese_stable_diffusion,
    save_tiny_stable_diffusion,
    save_tiny_stable_diffusion_xl,
)
from tuwen.errors import ModelUnavailable
from tuwen.generation.pipeline import DrawRequest, Generator, load_generator
from tuwen.settings import Settings

FAMILIES = {
    "Stable Diffusion": save_tiny_stable_diffusion,
    "Chinese Stable Diffusion": save_tiny_chinese_stable_diffusion,
    "SDXL": save_tiny_stable_diffusion_xl,
}
# diffusers' Euler scheduler makes a numpy array of a torch tensor in a way that numpy 2 wants otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(scope="module", params=FAMILIES)
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp("pipeline") / "model")
    return load_generator(Settings(_env_file=None, generator_model=str(folder)))


def steps_of(generator: Generator, request: DrawRequest) -> tuple[Image.Image, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    image = generator.draw(request, lambda done, of: steps.append((done, of)))
    return image, steps


def test_the_same_seed_draws_the_same_picture_in_every_family(generator: Generator) -> None:
    request = DrawRequest("红色的沙发", seed=7, steps=3, guidance=5.0)
    first, steps = steps_of(generator, request)
    again, _ = steps_of(generator, request)
    other, _ = steps_of(generator, DrawRequest("红色的沙发", seed=8, steps=3, guidance=5.0))
    assert first.mode == "RGB"
    assert first.size == (64, 64)  # as the pipeline declares
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_size_and_negative_prompt_reach_the_pipeline(generator: Generator) -> None:
    wide, _ = steps_of(generator, DrawRequest("a sofa", seed=1, steps=2, width=96, height=64))
    assert wide.size == (96, 64)
    plain, _ = steps_of(generator, DrawRequest("沙发", seed=1, steps=2))
    avoiding, _ = steps_of(generator, DrawRequest("沙发", seed=1, steps=2, negative_prompt="红色"))
    assert plain.tobytes() != avoiding.tobytes()


def test_what_the_callback_raises_ends_the_drawing(generator: Generator) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, _: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        generator.draw(DrawRequest("a sofa", seed=1, steps=50), cancel)


def test_steps_and_guidance_default_to_the_settings_then_to_the_model_then_to_its_pipeline(tmp_path: Path) -> None:
    folder = str(save_tiny_stable_diffusion(tmp_path / "model"))
    _, steps = steps_of(
        load_generator(Settings(_env_file=None, generator_model=folder, generator_steps=4)), DrawRequest("x", seed=1)
    )
    assert len(steps) == 4
    _, steps = steps_of(load_generator(Settings(_env_file=None, generator_model=folder)), DrawRequest("x", seed=1))
    assert len(steps) == 50  # what StableDiffusionPipeline declares
    (tmp_path / "model" / "generation_config.json").write_text('{"num_inference_steps": 6, "guidance_scale": 1.0}')
    generator = load_generator(Settings(_env_file=None, generator_model=folder))
    image, steps = steps_of(generator, DrawRequest("x", seed=1))
    guided, _ = steps_of(generator, DrawRequest("x", seed=1, guidance=9.0))
    assert len(steps) == 6
    assert image.tobytes() != guided.tobytes()


def test_a_model_that_is_not_there_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="GENERATOR_MODEL"):
        load_generator(Settings(_env_file=None, generator_model=str(tmp_path / "none")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match="GENERATOR_MODEL"):
        load_generator(Settings(_env_file=None, generator_model=str(tmp_path / "broken")))


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_an_unreachable_hub_is_a_clear_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Literal["huggingface", "modelscope"]
) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=f"GENERATOR_MODEL=nobody/nothing can't be had from {hub}"):
        load_generator(Settings(_env_file=None, generator_model="nobody/nothing", model_hub=hub))
