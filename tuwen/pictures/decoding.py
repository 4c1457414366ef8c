"""From bytes to pixels; whatever Pillow raises on the way becomes one of our errors."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

from data_models import PICTURE_FORMATS_IN_WORDS
from tuwen.errors import ImageTooLarge, UnreadableImage

# JPEG decodes to a power-of-two fraction at once, no smaller than this: encoders look at 224 to 384 pixels.
DECODE_SIDE = 1024


def decode_image(data: bytes) -> Image.Image:
    """Pixels of a picture that was checked when it came in. Raises UnreadableImage."""
    image = open_image(data)
    image.draft("RGB", (DECODE_SIDE, DECODE_SIDE))
    load_image(image)
    return image


def open_image(data: bytes) -> Image.Image:
    """Its header alone: format and size. Raises UnreadableImage, or ImageTooLarge for an absurd size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of the settings is stricter
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge.in_field("image", f"has too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        message = f"is not a picture; send a {PICTURE_FORMATS_IN_WORDS} file"
        raise UnreadableImage.in_field("image", message) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage.in_field("image", f"can't be read: {error}") from error


def load_image(image: Image.Image) -> None:
    """Its pixels, in place. Raises UnreadableImage."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnreadableImage.in_field("image", f"is broken or cut off: {error}") from error
