"""A folder that can't take a picture: which errors are about this one alone, and which about the whole disk."""

import errno
import os
from pathlib import Path

import pytest

from tuwen.errors import ImageStoreUnavailable, PictureUnreadable
from tuwen.pictures.folder import Folder


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, PictureUnreadable),
        (errno.EIO, PictureUnreadable),
        (errno.ENOSPC, ImageStoreUnavailable),
        (errno.EDQUOT, ImageStoreUnavailable),
        (errno.EROFS, ImageStoreUnavailable),
        (errno.EMFILE, ImageStoreUnavailable),
    ],
)
def test_a_full_disk_is_about_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[ImageStoreUnavailable]
) -> None:
    folder = Folder(tmp_path, durable=False)

    def fail(path: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(path), None, str(target))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ImageStoreUnavailable) as caught:
        folder.write("aa/a.png", b"x")
    assert type(caught.value) is kind
    assert os.strerror(number) in caught.value.detail
