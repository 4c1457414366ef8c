"""Errors on the wire: every failure as problem+json (RFC 9457), and a readable failed start."""

import copy
import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_models import Problem, ProblemField
from tuwen.access.errors import NotAuthenticated
from tuwen.api.failure_messages import told_of
from tuwen.api.messages import Language, Said, find_message, language_of
from tuwen.api.methods import allowed_methods
from tuwen.api.titles import TITLES
from tuwen.errors import (
    AppError,
    FieldError,
    ImageTooLarge,
    InvalidInput,
    MalformedRequest,
    Overloaded,
    UnsupportedImageType,
    summary,
)
from tuwen.request_ids import current_request_id
from tuwen.texts import encodable

logger = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
# What any route that takes a picture may answer.
IMAGE_ERRORS = (InvalidInput, ImageTooLarge, UnsupportedImageType)


def problem_response(error: AppError, language: Language) -> Response:
    error = _as_told(error)
    problem = _problem(error)
    if language == "zh":
        problem = _in_chinese(problem, error)
    headers = {"Content-Language": language, "Vary": "Accept-Language"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = error.challenge
    return Response(as_json(jsonable_encoder(problem)), error.status, headers, media_type=PROBLEM_JSON)


def as_json(content: object) -> bytes:
    """Whatever a caller wrote that stands in it."""
    return encodable(json.dumps(content, ensure_ascii=False, separators=(",", ":"))).encode()


def _as_told(error: AppError) -> AppError:
    """Of what is down or broken callers learn no more than that. What is overloaded says by itself how to go on."""
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, Overloaded):
        return error
    told = copy.copy(error)
    told.detail, told.errors = told_of(error.slug), ()
    return told


def _problem(error: AppError) -> Problem:
    said = _said_by(error)
    return Problem(
        type=f"urn:tuwen:problem:{error.slug}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=said.code if said else None,
        parameters=said.parameters if said else {},
        errors=[worded(each, "en") for each in error.errors],
        request_id=current_request_id(),
    )


def _sums_up(error: AppError) -> bool:
    """The detail says what its fields say, each of which has a code of its own."""
    return bool(error.errors) and error.detail == summary(error.errors)


def _said_by(error: AppError) -> Said | None:
    return None if _sums_up(error) else find_message(error.detail)


def worded(wrong: FieldError | ProblemField, language: Language) -> ProblemField:
    said = find_message(wrong.message)
    if said is None:
        return ProblemField(field=wrong.field, message=wrong.message)
    message = said.in_chinese if language == "zh" else wrong.message
    return ProblemField(field=wrong.field, message=message, code=said.code, parameters=said.parameters)


def _in_chinese(problem: Problem, error: AppError) -> Problem:
    """What has no Chinese sentence has at least a Chinese title in front of the English one."""
    title = TITLES.get(error.slug, problem.title)
    errors = [worded(each, "zh") for each in error.errors]
    if said := _said_by(error):
        detail = said.in_chinese
    elif _sums_up(error):
        detail = "；".join(f"{each.field}：{each.message}" for each in errors)
    else:
        detail = f"{title}：{error.detail}"
    return problem.model_copy(update={"title": title, "detail": detail, "errors": errors})


def as_invalid_input(error: ValidationError | RequestValidationError) -> InvalidInput:
    """Pydantic's errors in our words: each field by the name that the caller sent it under."""
    fields = []
    for each in error.errors():
        location = [str(part) for part in each["loc"] if part not in ("body", "query", "path")]
        fields.append(FieldError(".".join(location) or "body", _plain(each["msg"])))
    kind = MalformedRequest if any(each["type"] == "json_invalid" for each in error.errors()) else InvalidInput
    return kind(summary(fields), fields)


def problem_responses(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: each status with what it means."""
    by_status: dict[int | str, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.title)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": " / ".join(dict.fromkeys(titles)), "content": {PROBLEM_JSON: {"schema": schema}}}
        for status, titles in by_status.items()
    }


def install_problem_handlers(app: FastAPI) -> None:
    @app.exception_handler(AppError)
    async def on_app_error(request: Request, error: AppError) -> Response:
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.warning("%s: %s", error.slug, error.detail)
        return problem_response(error, accepted_language(request))

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return problem_response(as_invalid_input(error), accepted_language(request))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, AppError):  # FastAPI calls whatever stops it in a body 400; ours says more
            return problem_response(error.__cause__, accepted_language(request))
        status = HTTPStatus(error.status_code)
        if status is HTTPStatus.BAD_REQUEST:
            return problem_response(MalformedRequest(str(error.detail)), accepted_language(request))
        failure = AppError(str(error.detail))
        failure.status, failure.title = status.value, status.phrase
        failure.slug = status.phrase.lower().replace(" ", "-")
        response = problem_response(failure, accepted_language(request))
        response.headers.update(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(allowed_methods(request))
        return response

    @app.exception_handler(Exception)
    async def on_unexpected(request: Request, error: Exception) -> Response:
        return problem_response(AppError(type(error).__name__), accepted_language(request))


class ReadableStartFailure:
    """A start that the settings, or what they name, make impossible ends in the error's line, not in a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failure: Message | None = None

        async def holding_send(message: Message) -> None:
            nonlocal failure
            if message["type"] == "lifespan.startup.failed":
                failure = message
            else:
                await send(message)

        try:
            await self._app(scope, receive, holding_send)
        except AppError as error:
            await send({"type": "lifespan.startup.failed", "message": error.detail})
        except BaseException:
            if failure:
                await send(failure)
            raise


def accepted_language(request: Request) -> Language:
    return language_of(request.headers.get("accept-language", ""))


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")
