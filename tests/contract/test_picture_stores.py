"""What the picture store promises, the same in a local folder and in S3; and S3 while it is in trouble."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest

from tests.conftest import picture
from tests.processes import free_port, freeze, wait_until
from tests.promises import require_in_time
from tests.s3_proxy import S3Proxy, running_s3_proxy
from tests.servers import new_bucket, running_s3_process, s3_settings
from tuwen.errors import ConfigurationError, ImageStoreUnavailable, NotFound, PictureUnreadable
from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.checks import check_image
from tuwen.pictures.store import ImageStore
from tuwen.pictures.thumbnails import shown_path, thumbnail_path
from tuwen.settings import Settings

OURS, THEIRS = "a" * 32, "b" * 32
TIMEOUT_S = 2.0
MARGIN_S = 5.0


def image_of(color: str = "red") -> CheckedImage:
    return check_image(picture(color), Settings(_env_file=None))


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    if request.param == "folder":
        return Settings(_env_file=None, data_dir=tmp_path)
    return choose(new_bucket(request.getfixturevalue("s3")), monkeypatch)


def choose(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None, image_store_url=variables["IMAGE_STORE_URL"], **settings)


@pytest.fixture
def store(settings: Settings) -> ImageStore:
    return ImageStore(settings, OURS)


def listed(pages: Iterator[list[Any]]) -> list[str]:
    return sorted(file.path for page in pages for file in page)


def test_a_stored_picture_and_its_thumbnail_are_read(store: ImageStore) -> None:
    image = image_of()
    for _ in range(2):
        store.save(image)
        assert store.read(store.path_of(image)) == image.data
        assert store.read(thumbnail_path(store.path_of(image))).startswith(b"RIFF")
    store.check()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_lost_thumbnail_has_an_original_to_be_made_of_again(settings: Settings, image_format: str) -> None:
    store = ImageStore(settings, OURS)
    image = check_image(picture(image_format=image_format), settings)
    path = store.path_of(image)
    store.save(image)
    thumbnail = store.read(thumbnail_path(path))
    root = settings.image_store_address
    files, _ = fsspec.core.url_to_fs(root, skip_instance_cache=True)
    for lose in (files.rm_file, lambda lost: files.pipe_file(lost, b"")):  # a power loss may leave an empty file
        lose(f"{root}/{thumbnail_path(path)}")
        with pytest.raises(NotFound):
            store.read(thumbnail_path(path))
        assert store.original_of(thumbnail_path(path)) == image.data
        store.save_derived(thumbnail_path(path), thumbnail)
        assert files.cat_file(f"{root}/{thumbnail_path(path)}") == thumbnail


@pytest.mark.parametrize("path", ["aa/no.png", "../up.png", f"{OURS[:12]}/aa/{'a' * 64}.png"])
def test_a_picture_that_there_is_none_of_is_missing(store: ImageStore, path: str) -> None:
    for read in (store.read, store.original_of):
        with pytest.raises(NotFound):
            read(path)


def test_a_picture_is_set_aside_read_and_taken_back(store: ImageStore) -> None:
    image = image_of()
    path = store.path_of(image)
    store.save(image)
    mark = store.set_aside(path)
    assert listed(store.list_pages(10)) == []
    assert listed(store.list_pages_aside(10)) == [path]
    assert store.read(path) == image.data
    assert store.read(thumbnail_path(path))
    store.take_back(path, mark)
    assert listed(store.list_pages(10)) == [path]
    assert listed(store.list_pages_aside(10)) == []
    assert store.read(thumbnail_path(path))


def test_what_is_shown_for_a_picture_goes_where_it_goes(store: ImageStore, settings: Settings) -> None:
    image = check_image(picture(image_format="TIFF"), settings)
    path = store.path_of(image)
    shown = shown_path(path)
    store.save(image)
    assert store.original_of(shown) == image.data
    store.save_derived(shown, b"webp")
    mark = store.set_aside(path)
    assert store.read(shown) == b"webp"
    store.remove_aside(path, mark)
    for each in (path, shown):
        with pytest.raises(NotFound):
            store.read(each)


def test_what_earlier_versions_made_of_a_picture_goes_with_it_too(store: ImageStore) -> None:
    image = image_of()
    path = store.path_of(image)
    store.save(image)
    copy = f"shown/{path.rpartition('.')[0]}.webp"
    store.save_derived(copy, b"webp")
    store.remove_aside(path, store.set_aside(path))
    with pytest.raises(NotFound):
        store.read(copy)


def test_what_a_broken_off_removal_left_in_its_place_goes_with_the_picture(store: ImageStore) -> None:
    path = store.path_of(image_of())
    store.save(image_of())
    mark = store.set_aside(path)
    store.save_derived(thumbnail_path(path), b"webp")  # as if its own move had failed
    store.remove_aside(path, mark)
    with pytest.raises(NotFound):
        store.read(thumbnail_path(path))


def test_a_picture_is_removed_in_two_steps_that_may_come_again(store: ImageStore) -> None:
    image = image_of()
    path = store.path_of(image)
    store.save(image)
    for _ in range(2):
        mark = store.set_aside(path)
        store.remove_aside(path, mark)
        store.take_back(path, mark)
        for each in (path, thumbnail_path(path)):
            with pytest.raises(NotFound):
                store.read(each)


def test_an_upload_between_the_steps_keeps_its_picture(store: ImageStore) -> None:
    image = image_of()
    path = store.path_of(image)
    store.save(image)
    mark = store.set_aside(path)
    store.save(image)
    store.remove_aside(path, mark)
    assert store.read(path) == image.data
    assert store.read(thumbnail_path(path))


def test_a_sweep_that_was_paused_removes_nothing_that_another_takes_back(settings: Settings) -> None:
    image, upload = image_of(), ImageStore(settings, OURS)
    paused, current = ImageStore(settings, OURS), ImageStore(settings, OURS)
    path = upload.path_of(image)
    upload.save(image)
    old = paused.set_aside(path)  # nothing named it then
    upload.save(image)  # of a product that is deleted again, and now of another one
    mark = current.set_aside(path)  # which this one has not seen yet
    paused.remove_aside(path, old)
    assert upload.read(path) == image.data
    current.take_back(path, mark)
    assert upload.read(path) == image.data
    assert upload.read(thumbnail_path(path))


def test_what_a_sweep_took_away_is_stored_again(settings: Settings) -> None:
    image, upload, sweep = image_of(), ImageStore(settings, OURS), ImageStore(settings, OURS)
    path = upload.path_of(image)
    upload.save(image)
    assert listed(upload.list_pages(10)) == [path]  # a listing of before must not answer for now
    sweep.remove_aside(path, sweep.set_aside(path))
    upload.save_if_gone(image)
    assert sweep.read(path) == image.data


def test_listings_have_pages_times_and_nobody_elses(settings: Settings) -> None:
    ours, theirs = ImageStore(settings, OURS), ImageStore(settings, THEIRS)
    colors = ("red", "green", "blue", "white", "black")
    for color in colors:
        ours.save(image_of(color))
        theirs.save(image_of(color))
    pages = list(ours.list_pages(2))
    assert all(len(page) <= 2 for page in pages)
    assert listed(iter(pages)) == sorted(ours.path_of(image_of(color)) for color in colors)
    now = datetime.now(UTC)
    assert all(abs(file.modified_at - now) < timedelta(minutes=5) for page in pages for file in page)


def test_a_store_that_holds_nothing_of_what_it_should_is_another_one(settings: Settings) -> None:
    image, theirs = image_of(), ImageStore(settings, THEIRS)
    theirs.save(image)
    ours = ImageStore(settings, OURS, lambda: [ours.path_of(image)])
    path = ours.path_of(image)
    calls: list[Callable[[], object]] = [
        ours.check,
        lambda: ours.has(path),
        lambda: ours.read(path),
        lambda: ours.original_of(thumbnail_path(path)),
        lambda: ours.save(image),
    ]
    for call in calls:
        with pytest.raises(ImageStoreUnavailable, match="IMAGE_STORE_URL"):
            call()
    assert theirs.read(theirs.path_of(image)) == image.data
    ours.mark()
    ours.check()
    assert not ours.has(path)
    ours.save(image)
    assert ours.read(path) == image.data


# --- S3 alone --------------------------------------------------------------------------------------------------------


MARK = "0123456789abcdef"
CALLS: dict[str, Callable[[ImageStore, CheckedImage], Any]] = {
    "check": lambda store, _: store.check(),
    "save": lambda store, image: store.save(image),
    "read": lambda store, image: store.read(store.path_of(image)),
    "set_aside": lambda store, image: store.set_aside(store.path_of(image)),
    "take_back": lambda store, image: store.take_back(store.path_of(image), MARK),
    "remove_aside": lambda store, image: store.remove_aside(store.path_of(image), MARK),
    "list_pages": lambda store, _: list(store.list_pages(10)),
}


def refusals(store: ImageStore) -> dict[str, ImageStoreUnavailable]:
    """What each call says, all made at once; none may take longer than its deadline."""
    image = image_of()

    def refusal(call: Callable[[ImageStore, CheckedImage], Any]) -> ImageStoreUnavailable:
        with pytest.raises(ImageStoreUnavailable) as caught:
            call(store, image)
        return caught.value

    started = time.monotonic()
    with ThreadPoolExecutor(len(CALLS)) as threads:
        found = dict(zip(CALLS, threads.map(refusal, CALLS.values()), strict=True))
    require_in_time(time.monotonic() - started, TIMEOUT_S + MARGIN_S)
    assert all("IMAGE_STORE_URL" in error.detail for error in found.values())
    return found


@pytest.fixture
def bucket(s3: str) -> dict[str, str]:
    return new_bucket(s3)


@pytest.fixture
def proxy(s3: str) -> Iterator[S3Proxy]:
    with running_s3_proxy(s3) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(proxy: S3Proxy, bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    settings = choose(bucket | {"AWS_ENDPOINT_URL": proxy.address}, monkeypatch, image_store_timeout_s=TIMEOUT_S)
    store = ImageStore(settings, OURS)
    store.save(image_of())
    return store


def test_an_s3_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = s3_settings(f"http://127.0.0.1:{free_port()}", "pictures")
    store = ImageStore(choose(nobody, monkeypatch, image_store_timeout_s=TIMEOUT_S), OURS)
    refusals(store)
    store.save_if_gone(image_of())  # what is committed is not refused


@pytest.mark.parametrize("mode", ["throttle", "drop", "slow"])
def test_an_s3_in_trouble_is_unavailable_and_then_back(proxy: S3Proxy, behind_proxy: ImageStore, mode: Any) -> None:
    proxy.mode, proxy.delay_s = mode, 3 * TIMEOUT_S
    found = refusals(behind_proxy)
    assert not any(isinstance(error, PictureUnreadable) for error in found.values())  # it is not about one picture
    proxy.mode = "pass"
    assert behind_proxy.read(behind_proxy.path_of(image_of())) == image_of().data


def test_an_answer_that_is_cut_off_is_no_picture(proxy: S3Proxy, behind_proxy: ImageStore) -> None:
    proxy.mode = "cut"
    with pytest.raises(ImageStoreUnavailable, match="IMAGE_STORE_URL"):
        behind_proxy.read(behind_proxy.path_of(image_of()))


def test_a_call_to_s3_is_tried_again_once_at_most(proxy: S3Proxy, behind_proxy: ImageStore) -> None:
    proxy.seen.clear()
    behind_proxy.read(behind_proxy.path_of(image_of()))
    assert len(proxy.seen) == 1
    proxy.mode = "throttle"
    with pytest.raises(ImageStoreUnavailable):
        behind_proxy.read(behind_proxy.path_of(image_of()))
    assert len(proxy.seen) <= 3


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_s3_holds_each_caller_for_its_deadline_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_s3_process(tmp_path) as (address, process):
        store = ImageStore(choose(new_bucket(address), monkeypatch, image_store_timeout_s=TIMEOUT_S), OURS)
        store.save(image_of())
        with frozen(process.pid):
            refusals(store)
            refusals(store)
        wait_until(lambda: answers_again(store), what="the store to be back")
        # Who has no business in there.
        httpx.post(f"{address}/moto-api/reset-auth", content="0", trust_env=False).raise_for_status()
        for error in refusals(store).values():
            assert "credentials" in error.detail


def answers_again(store: ImageStore) -> bool:
    try:
        store.check()
    except ImageStoreUnavailable:
        return False
    return store.read(store.path_of(image_of())) == image_of().data


def test_without_credentials_the_error_says_so(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = choose(new_bucket(s3), monkeypatch, image_store_timeout_s=TIMEOUT_S)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(ImageStoreUnavailable, match="credentials"):
        ImageStore(settings, OURS).read(f"aa/{'a' * 64}.png")


def test_a_bucket_that_is_missing_is_said_and_never_made(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(choose(s3_settings(s3, "no-such-bucket"), monkeypatch), OURS)
    for name, error in refusals(store).items():
        assert "The bucket no-such-bucket does not exist" in error.detail, name
    store.save_if_gone(image_of())
    assert httpx.get(f"{s3}/no-such-bucket", trust_env=False).status_code == 404


@pytest.mark.parametrize("killed_in", ["set_aside", "take_back"])
def test_a_move_in_s3_that_was_killed_between_copy_and_delete_loses_nothing(
    bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    store, image = ImageStore(choose(bucket, monkeypatch), OURS), image_of()
    path, root = store.path_of(image), bucket["IMAGE_STORE_URL"]
    store.save(image)
    files, _ = fsspec.core.url_to_fs(root, skip_instance_cache=True, use_listings_cache=False)
    files.cp_file(f"{root}/{path}", f"{root}/aside/{path}.{MARK}")  # the same in both directions
    assert listed(store.list_pages(10)) == listed(store.list_pages_aside(10)) == [path]
    if killed_in == "take_back":
        store.take_back(path, MARK)
        assert store.read(path) == image.data
    else:
        store.remove_aside(path, MARK)
        assert listed(store.list_pages(10)) == [path]
        store.remove_aside(path, store.set_aside(path))
        with pytest.raises(NotFound):
            store.read(path)
    assert listed(store.list_pages_aside(10)) == []


def test_an_address_of_no_store_is_refused_at_the_start() -> None:
    for address in ("memory://pictures", "ftp2://host/pictures"):
        with pytest.raises(ConfigurationError, match="IMAGE_STORE_URL"):
            ImageStore(Settings(_env_file=None, image_store_url=address), OURS)


# --- A folder alone --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_gone_is_no_empty_store(tmp_path: Path) -> None:
    """As a disk that is not mounted any more: nothing is missing for good, and nothing is written beside it."""
    settings = Settings(_env_file=None, image_store_url=str(tmp_path / "disk"), image_store_timeout_s=TIMEOUT_S)
    store = ImageStore(settings, OURS)
    store.save(image_of())
    (tmp_path / "disk").rename(tmp_path / "away")
    refusals(store)
    assert not (tmp_path / "disk").exists()
    (tmp_path / "away").rename(tmp_path / "disk")
    assert store.read(store.path_of(image_of())) == image_of().data


@pytest.mark.parametrize("durable", [True, False])
def test_a_picture_is_synced_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, durable_writes=durable)
    store, image, synced = ImageStore(settings, OURS), image_of(), list[tuple[Path, bool]]()
    target = tmp_path / "images" / store.path_of(image)
    sync = os.fsync

    def noting_sync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), target.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting_sync)
    store.save(image)
    if not durable:
        assert synced == []
        return
    *folders, (file, named), (folder, holds_it) = synced
    root, owner = target.parent.parent.parent, target.parent.parent
    assert [each for each, _ in folders if each.suffix != ".part"] == [root, owner, owner]  # of the mark, first
    assert (file.parent, file.suffix, named) == (target.parent, ".part", False)
    assert (folder, holds_it) == (target.parent, True)
