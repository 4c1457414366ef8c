"""Writes the page that credits the authors of the demo products, as their licences ask.

Owns the wording of the credits; what it says about licences is taken from the package's copyright and licence files.
"""

from demo.furniture_package import LICENCES, PACKAGE, Product

LICENCE_LINKS = {
    "CC0-1.0": ("CC0 1.0 Universal (public domain dedication)", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "CC-BY-3.0": ("Creative Commons Attribution 3.0 Unported", "https://creativecommons.org/licenses/by/3.0/"),
    "CC-BY-3.0-US": (
        "Creative Commons Attribution 3.0 United States",
        "https://creativecommons.org/licenses/by/3.0/us/",
    ),
}
LIBRARY_NOTICES = {
    "BlendSwap-CC-0": "3D models by various authors of Blend Swap (http://www.blendswap.com), cleaned and converted "
    "by Emmanuel Puybaret / eTeks. © 2014 Emmanuel Puybaret / eTeks <info@eteks.com> and other contributors.",
    "BlendSwap-CC-BY": "3D models by various authors of Blend Swap (http://www.blendswap.com), cleaned and converted "
    "by Emmanuel Puybaret / eTeks. © The Blend Swap contributors.",
    "KatorLegaz": "© 2003-2008 Andrew Kator & Jennifer Legaz.",
    "Reallusion": "© 2008-2016 Reallusion (http://www.reallusion.com).",
    "Scopia": "© 2006-2020 Scopia Visual Interfaces Systems, s.l. (http://www.scopia.es), and for the icons and 265 of "
    "the models also © 2014-2020 Emmanuel Puybaret / eTeks <info@eteks.com>. To be attributed to both.",
}


def attribution_page(products: list[Product], version: str) -> str:
    return "\n".join([*_introduction(products, version), *_libraries(products), *_table(products)])


def _introduction(products: list[Product], version: str) -> list[str]:
    lines = [
        "# Attribution",
        "",
        f"The {len(products)} demo products come from the Debian package `{PACKAGE}` {version} (upstream: Sweet Home",
        "3D, additional furniture libraries, http://www.sweethome3d.com/importModels.jsp). Its copyright statement,",
        "with the texts of the licences, is in [package-copyright.txt](package-copyright.txt).",
        "",
        "**Changes made:** the pictures in `images/` and in `../evaluation/views/` are renders of the 3D models (or,",
        "where `pictures.csv` says `icon`, the package's icons, enlarged); materials were brightened. Titles and",
        "categories are ours. The authors have not endorsed this use. The pictures stay under their model's licence.",
        "",
        "Where the licence file beside a model differs from its library's, the model's own file counts: so it is with",
        f"{_own_licences(products)}.",
        "",
        "| licence | name | products |",
        "| --- | --- | --- |",
    ]
    for licence, (name, link) in LICENCE_LINKS.items():
        count = sum(product.licence == licence for product in products)
        lines.append(f"| {licence} | [{name}]({link}) | {count} |")
    return [*lines, ""]


def _own_licences(products: list[Product]) -> str:
    names = [f"`{product.sku}`" for product in products if product.licence != LICENCES[product.library]]
    return ", ".join(names) or "none"


def _libraries(products: list[Product]) -> list[str]:
    lines = ["| library | products | notice |", "| --- | --- | --- |"]
    for library, notice in LIBRARY_NOTICES.items():
        count = sum(product.library == library for product in products)
        lines.append(f"| {library} | {count} | {notice} |")
    return [*lines, ""]


def _table(products: list[Product]) -> list[str]:
    lines = ["| sku | name | author | licence | library | original |", "| --- | --- | --- | --- | --- | --- |"]
    for product in products:
        cells = (product.sku, product.name, product.creator, product.licence, product.library, product.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]
