"""What is done to a picture before any model's own preprocessing."""

from PIL import ExifTags, Image, ImageOps


def prepare_picture(image: Image.Image, *, pad_to_square: bool) -> Image.Image:
    """RGB on white. Transparent margins are cut off; padding keeps a centre crop from cutting the product."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)  # which copies any other, too
    if image.has_transparency_data:
        image = image.convert("RGBA")
        box = image.getchannel("A").getbbox()
        image = image.crop(box) if box else image
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if pad_to_square and image.width != image.height:
        side = max(image.size)
        image = ImageOps.pad(image, (side, side), color="white")
    return image
