"""Draws the same 24 prompts, chosen before the model was trained, on one sheet: how good the generator is, unpicked.

python -m training.generator.contact_sheet --model models/demo-generator --out docs/images/generator.webp
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoPipelineForText2Image
from PIL import Image, ImageDraw, ImageFont

from training.generator.diffusion import GUIDANCE, STEPS

PROMPTS = (
    "红色的沙发",
    "蓝色布艺双人沙发",
    "白色皮质转角沙发",
    "green armchair",
    "黑色办公椅",
    "wooden dining chair",
    "圆形木质餐桌",
    "yellow coffee table",
    "白色双人床",
    "深棕色实木书柜",
    "purple wardrobe",
    "黄色台灯",
    "black floor lamp",
    "绿植盆栽",
    "红色小汽车",
    "blue bicycle",
    "白色陶瓷马桶",
    "银色冰箱",
    "pink refrigerator",
    "橙色花瓶",
    "黑色三角钢琴",
    "brown wooden door",
    "苹果",
    "猫",
)
COLUMNS, CELL, TEXT_HEIGHT, GAP = 6, 128, 26, 8
FONT_SIZE = 14
# Files that hold Chinese, by the names under which PIL looks through the system's font folders.
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "PingFang.ttc",
    "STHeiti Light.ttc",
)
BATCH = 6


class FontMissingError(Exception):
    """No font with Chinese characters was found."""


def load_pipeline(folder: Path) -> Any:
    """The folder's pipeline in float32, without progress bars."""
    pipeline: Any = AutoPipelineForText2Image.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_prompts(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], **options: float | None
) -> list[Image.Image]:
    """A picture of each prompt; `options` are the pipeline's own, such as `guidance_scale`."""
    drawn: list[Image.Image] = []
    for begin in range(0, len(prompts), BATCH):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[begin : begin + BATCH]]
        drawn += pipeline(list(prompts[begin : begin + BATCH]), generator=generators, **options).images
    return drawn


def find_font() -> ImageFont.FreeTypeFont:
    """The first font of `FONTS` that the system has."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    raise FontMissingError(
        f"none of the fonts {', '.join(FONTS)} is installed (Debian: apt-get install fonts-noto-cjk)"
    )


def make_sheet(pictures: Sequence[Image.Image], texts: Sequence[str], font: ImageFont.FreeTypeFont) -> Image.Image:
    """The pictures in rows with their texts below."""
    rows = -(-len(pictures) // COLUMNS)
    width, height = CELL + 2 * GAP, CELL + TEXT_HEIGHT + GAP
    sheet = Image.new("RGB", (COLUMNS * width, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        left, top = index % COLUMNS * width, index // COLUMNS * height + GAP
        sheet.paste(picture.resize((CELL, CELL)), (left + GAP, top))
        pen.text((left + width / 2, top + CELL + TEXT_HEIGHT / 2), text, fill="black", font=font, anchor="mm")
    return sheet


def write_contact_sheet(model: Path, file: Path, **options: float | None) -> None:
    """Draw all prompts with seeds 0, 1, 2 and so on."""
    font = find_font()  # before the drawing, which takes a while
    pictures = draw_prompts(load_pipeline(model), PROMPTS, range(len(PROMPTS)), **options)
    file.parent.mkdir(parents=True, exist_ok=True)
    make_sheet(pictures, PROMPTS, font).save(file)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    options = parser.parse_args()
    try:
        write_contact_sheet(
            options.model, options.out, num_inference_steps=options.steps, guidance_scale=options.guidance
        )
    except FontMissingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
