"""`/keys`: API keys, for whoever has the scope `admin`."""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Path, Request, Response
from fastapi.routing import APIRouter

from data_models import ApiKeys, CreatedApiKey, NewApiKey
from tuwen.access.errors import KeyNameTaken
from tuwen.access.keys import create_key, list_keys, revoke_key
from tuwen.api.access import GuardedRoute, log_change_of_keys, needs, refuse_pages_without_key
from tuwen.api.forms import json_as
from tuwen.api.openapi import json_body
from tuwen.api.problems import problem_responses
from tuwen.api.state import Api, ApiDependency
from tuwen.database.engine import Database
from tuwen.errors import AppError, DatabaseUnavailable, InvalidInput, MalformedRequest, NotFound, UnsupportedMediaType


def _not_stored(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


router = APIRouter(tags=["keys"], route_class=GuardedRoute, dependencies=[Depends(_not_stored)])


@router.post(
    "/keys",
    status_code=201,
    summary="Make an API key",
    openapi_extra=json_body(NewApiKey),
    responses=problem_responses(
        MalformedRequest, InvalidInput, UnsupportedMediaType, KeyNameTaken, DatabaseUnavailable
    ),
    dependencies=[Depends(refuse_pages_without_key)],
)
@needs("admin")
async def create_api_key(request: Request, api: ApiDependency) -> CreatedApiKey:
    """The answer has the key, this once. From the first key on, whoever calls the service needs one.

    A name is free again once its key is revoked or has expired.
    """
    wanted = await json_as(NewApiKey, request)
    created = await api.threads.writes.run(_create, api.services.database, wanted)
    log_change_of_keys(request, created.name, f"made, with the scopes {', '.join(created.scopes)},")
    await _read_anew(api)
    return created


@router.get("/keys", summary="List the API keys", responses=problem_responses(DatabaseUnavailable))
@needs("admin")
async def list_api_keys(api: ApiDependency) -> ApiKeys:
    """With those that are revoked or have expired, by name; at most 1,000."""
    return await api.threads.reads.run(_list, api.services.database)


@router.delete(
    "/keys/{name}",
    status_code=204,
    summary="Revoke an API key",
    responses=problem_responses(NotFound, DatabaseUnavailable),
    dependencies=[Depends(refuse_pages_without_key)],
)
@needs("admin")
async def revoke_api_key(name: Annotated[str, Path(max_length=64)], request: Request, api: ApiDependency) -> None:
    """Every process refuses it within five seconds. Safe to repeat."""
    await api.threads.writes.run(_revoke, api.services.database, name)
    log_change_of_keys(request, name, "revoked")
    await _read_anew(api)


def _create(database: Database, wanted: NewApiKey) -> CreatedApiKey:
    with database.write() as session:
        return create_key(session, wanted)


def _list(database: Database) -> ApiKeys:
    with database.read() as session:
        return ApiKeys(items=list_keys(session))


def _revoke(database: Database, name: str) -> None:
    with database.write() as session:
        revoke_key(session, name)


async def _read_anew(api: Api) -> None:
    with suppress(AppError):  # it is done, and known here in two seconds too
        await api.keyring.read_anew()
