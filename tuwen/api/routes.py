"""Every route of the service."""

from fastapi import FastAPI

from tuwen.api import (
    calibration,
    documentation,
    duplicates,
    generation,
    images,
    imports,
    keys,
    operation,
    product_images,
    products,
    reindex,
    retry,
    search,
    skus,
)
from tuwen.api.parameters import STRICT

# In this order: of two paths that fit, the first is taken. All are gone through, and searches are asked for most.
RESOURCES = (
    search,
    imports,
    duplicates,
    products,
    product_images,
    retry,
    skus,
    generation,
    images,
    operation,
    reindex,
    calibration,
    keys,
    documentation,
)


def install_routes(app: FastAPI) -> None:
    for resource in RESOURCES:
        app.include_router(resource.router, **STRICT)
