"""`/calibration`: how the signals of a search's hits become their relevance."""

from fastapi import Request
from fastapi.routing import APIRouter

from data_models import Calibration, ModeCalibration, NewCalibration, SearchMode
from tuwen.api.access import GuardedRoute, needs
from tuwen.api.forms import json_as
from tuwen.api.openapi import json_body
from tuwen.api.problems import problem_responses
from tuwen.api.state import Api, ApiDependency
from tuwen.errors import DatabaseUnavailable, InvalidInput, MalformedRequest, UnsupportedMediaType, VectorDBUnavailable
from tuwen.search.relevance import shipped_with
from tuwen.vectors.calibrations import calibrations_of, store_calibration

router = APIRouter(tags=["operation"], route_class=GuardedRoute)


@router.get(
    "/calibration",
    summary="What relevance is computed by",
    responses=problem_responses(DatabaseUnavailable, VectorDBUnavailable),
)
@needs("admin")
async def get_calibration(api: ApiDependency) -> Calibration:
    """By mode, what the live index has: fitted for it, or come with its models. A mode that is not there has none."""
    return await api.threads.reads.run(_read, api)


@router.put(
    "/calibration/{mode}",
    summary="Calibrate a search mode",
    openapi_extra=json_body(NewCalibration),
    responses=problem_responses(MalformedRequest, InvalidInput, UnsupportedMediaType, DatabaseUnavailable),
)
@needs("admin")
async def put_calibration(mode: SearchMode, request: Request, api: ApiDependency) -> ModeCalibration:
    """Kept with the live index, and everywhere in use within two seconds. `cli.py calibrate` fits and sends it."""
    return await api.threads.writes.run(_store, api, mode, await json_as(NewCalibration, request))


def _read(api: Api) -> Calibration:
    index = api.services.registry.live()
    with api.services.database.read() as session:
        fitted = calibrations_of(session, index.vector_index_id)
    fingerprint = index.encoding.encoders.fingerprint
    return Calibration(
        collection=index.collection, fingerprint=fingerprint, modes={**shipped_with(fingerprint), **fitted}
    )


def _store(api: Api, mode: SearchMode, body: NewCalibration) -> ModeCalibration:
    with api.services.database.write() as session:
        return store_calibration(session, mode, body)
