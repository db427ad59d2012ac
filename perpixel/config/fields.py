"""What every model of the schema shares: its base class, number types and how a conflict between keys is reported."""

from __future__ import annotations

import re
from typing import Annotated, Any, NoReturn, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

__all__ = ["CONFLICT", "ChangesTo", "KeyPath", "Name", "Number", "Option", "Pattern", "Strict", "Whole", "conflict"]

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the top of the configuration."""

CONFLICT = "conflict"
"""Type of the errors that concern several keys of one model together."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Strict(BaseModel):
    """Base of every model of the schema: frozen, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def conflict(model: str, message: str, *path: str | int, value: Any = None) -> NoReturn:
    """Raises the error of a model whose keys contradict each other, at ``path`` below the model.

    Raises:
        ValidationError: always.
    """
    error = PydanticCustomError(CONFLICT, "{text}", {"text": message})
    raise ValidationError.from_exception_data(model, [{"type": error, "loc": path, "input": value}])


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("names a folder: letters, digits, '_', '-' and '.', and a letter or digit first")
    return name


class ChangesTo:
    """Marks a mapping whose keys are those of ``model``, all of them optional."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Documents the mapping by the model's own schema."""
        return handler(self.model.__pydantic_core_schema__)


Whole: TypeAlias = Annotated[int, BeforeValidator(_refuse_bool)]
Number: TypeAlias = Annotated[float, BeforeValidator(_refuse_bool)]
Pattern: TypeAlias = Annotated[str, AfterValidator(_check_pattern)]
Name: TypeAlias = Annotated[str, AfterValidator(_check_name)]
Option: TypeAlias = bool | int | float | str | tuple[bool | int | float | str | None, ...] | None
"""Value of an option that only the network or the loss itself can judge."""
