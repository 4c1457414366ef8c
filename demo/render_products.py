"""Renders many products in parallel processes: resumable, and a product that fails does not stop the rest.

Owns the layout of the render folder, `<folder>/<sku>/az<azimuth>_el<elevation>.png`.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from demo.furniture_package import Product
from demo.render import View, render_views


@dataclass(frozen=True)
class Pose:
    """What makes a model show well in every view.

    `turn` and `rise` are degrees added to the azimuth and elevation, for models that face backwards or lie flat;
    `ground` is the grey of the background, for white markings that white would swallow.
    """

    turn: float = 0.0
    rise: float = 0.0
    ground: float = 1.0

    @property
    def note(self) -> str:
        return f"{self.turn:g} {self.rise:g} {self.ground:g}"


def render_product(product: Product, pose: Pose, models: Path, renders: Path, views: Sequence[View]) -> list[Path]:
    """Render one product as Sweet Home 3D would place it; return the pictures' paths in the order of `views`."""
    return render_views(
        models / product.library / product.model,
        renders / product.sku,
        views,
        rotation=product.rotation,
        size=(product.width_cm, product.height_cm, product.depth_cm),
        turn=pose.turn,
        rise=pose.rise,
        ground=pose.ground,
    )


def discard_other_pose(folder: Path, pose: Pose) -> None:
    """Remove the renders of a pose that has been changed since. Pictures without a note are of the default pose."""
    note = folder / "pose.txt"
    noted = note.read_text(encoding="ascii") if note.exists() else Pose().note
    if noted != pose.note:
        for picture in folder.glob("*.png"):
            picture.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(pose.note, encoding="ascii")


def render_products(
    work: Iterable[tuple[Product, Pose, Sequence[View]]], models: Path, renders: Path, *, processes: int
) -> dict[str, str]:
    """Render what is missing; return the reason of each failure by sku."""
    work = list(work)
    for product, pose, _ in work:
        discard_other_pose(renders / product.sku, pose)
    todo = [
        (product, pose, views)
        for product, pose, views in work
        if not all((renders / product.sku / view.file_name).exists() for view in views)
    ]
    failures: dict[str, str] = {}
    started = time.monotonic()
    # Mesa's software renderer would start a thread per core in every process.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    # Spawned, because a graphics context does not survive a fork.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = {
            pool.submit(render_product, product, pose, models, renders, views): product for product, pose, views in todo
        }
        for done, future in enumerate(as_completed(futures), start=1):
            error = future.exception()
            if error is not None:
                failures[futures[future].sku] = f"{type(error).__name__}: {error}"
            if done % 50 == 0 or done == len(todo):
                print(f"  {done}/{len(todo)} products, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return failures
