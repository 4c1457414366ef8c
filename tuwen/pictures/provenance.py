"""How a picture says that a model made it: the mark that ours carry, and the reading of anybody's."""

import hashlib
import io
from collections.abc import Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tuwen.pictures.checked_image import CheckedImage
from tuwen.pictures.thumbnails import make_thumbnail

PNG_XMP = "XML:com.adobe.xmp"
# How IPTC has pictures say that a trained model made them: cv.iptc.org/newscodes/digitalsourcetype
GENERATED_SOURCE = "digitalsourcetype/trainedAlgorithmicMedia"
GENERATED_XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/{GENERATED_SOURCE}"/></rdf:RDF></x:xmpmeta>"""


def says_generated(image: Image.Image, data: bytes) -> bool:
    """`data`: the file. Where it has its XMP differs by format, and in a PNG it may be compressed."""
    packet = image.info.get(PNG_XMP) or image.info.get("xmp") or ""
    text = packet.decode(errors="replace") if isinstance(packet, bytes) else str(packet)
    return GENERATED_SOURCE in text or GENERATED_SOURCE.encode() in data


def encode_generated(image: Image.Image, notes: Mapping[str, str]) -> CheckedImage:
    """A PNG that says of itself that a model made it; `notes` are its further text chunks. Same input, same bytes."""
    info = PngInfo()
    info.add_itxt(PNG_XMP, GENERATED_XMP)
    for key, value in notes.items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    return CheckedImage(
        data=data,
        sha256=sha256,
        received_sha256=sha256,
        extension="png",
        width=image.width,
        height=image.height,
        thumbnail=make_thumbnail(image),
        is_generated=True,
    )
