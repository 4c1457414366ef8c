"""Query parameters that a route does not know are refused: a misspelt one would be passed over in silence."""

from typing import Any, get_origin

from fastapi import Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query

from tuwen.api.methods import refuse_other_methods
from tuwen.api.problems import problem_responses
from tuwen.errors import FieldError, InvalidInput, summary


async def refuse_unknown_parameters(request: Request) -> None:
    given = request.query_params
    if not given or request.scope["route"].path.startswith("/images/"):  # pages put versions behind pictures' addresses
        return
    fields = get_flat_params(request.scope["route"].dependant)
    known = sorted(field.alias for field in fields if isinstance(field.field_info, Query))
    if known:
        unknown = [
            FieldError(name, f"is no parameter; there are {', '.join(known)}") for name in given if name not in known
        ]
    else:
        unknown = [FieldError(name, "is no parameter; there are none here") for name in given]
    of_many = {field.alias for field in fields if get_origin(field.field_info.annotation) is list}
    several = [name for name in known if name not in of_many and len(given.getlist(name)) > 1]
    twice = [FieldError(name, "comes twice; send it once") for name in several]
    errors = unknown + twice
    if errors:
        raise InvalidInput(summary(errors), errors)


# For each router.
STRICT: dict[str, Any] = {
    "dependencies": [Depends(refuse_other_methods), Depends(refuse_unknown_parameters)],
    "responses": problem_responses(InvalidInput),
}
