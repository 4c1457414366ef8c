"""Why a product failed and what is wrong with a part: kept and raised in English, said in Chinese on request.

What has no Chinese sentence, such as the words of a database, stays as it is.
"""

import re

from data_models import Health, Product
from tuwen.api.messages import Language, find_message

OF_PICTURE = re.compile(r"Picture (\d+): (.*)", re.DOTALL)
OF_IMAGE = "image: "


def product_in(language: Language, product: Product) -> Product:
    if language == "en" or product.index_error is None:
        return product
    return product.model_copy(update={"index_error": _in_chinese(product.index_error)})


def health_in(language: Language, health: Health) -> Health:
    if language == "en":
        return health
    parts = {
        name: part.model_copy(update={"detail": part.detail and _in_chinese(part.detail)})
        for name, part in health.components
    }
    return health.model_copy(update={"components": health.components.model_copy(update=parts)})


def _in_chinese(reason: str) -> str:
    if of_picture := OF_PICTURE.fullmatch(reason):
        return f"图片 {of_picture[1]}：{_in_chinese(of_picture[2])}"
    sentence = reason.removeprefix(OF_IMAGE)
    said = find_message(sentence)
    if said is None:
        return reason
    return said.in_chinese if sentence == reason else f"图片{said.in_chinese}"
