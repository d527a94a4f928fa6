"""The parameters of a request: from its query for GET, else from its JSON body; checked as they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from services.mlflow_rest.errors import MlflowError, invalid

_INT64 = 2**63


class Parameters:
    """The parameters of a request by name, or the fields of an object in it.

    Args:
        fields: The values, as JSON has them; those of a query are lists of texts.
        where: What stands before a name in messages, such as ``metrics[0].``
        from_query: Whether they are of a query, where one value and a list of one look alike.
    """

    def __init__(self, fields: Mapping[str, Any], where: str = "", *, from_query: bool = False) -> None:
        self._fields = fields
        self._where = where
        self._from_query = from_query

    @classmethod
    def from_query(cls, query: str) -> Parameters:
        """Return the parameters in a query."""
        return cls(parse_qs(query, keep_blank_values=True), from_query=True)

    @classmethod
    def from_body(cls, body: bytes) -> Parameters:
        """Return the parameters in a JSON body.

        Raises:
            MlflowError: BAD_REQUEST when it is not a JSON object.
        """
        if not body.strip():
            return cls({})
        try:
            fields = json.loads(body)
            if isinstance(fields, str):  # some clients encode the object a second time
                fields = json.loads(fields)
        except (ValueError, RecursionError) as error:
            raise MlflowError("BAD_REQUEST", f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise MlflowError("BAD_REQUEST", f"the body must be a JSON object, got {type(fields).__name__}")
        return cls(fields)

    def has(self, name: str) -> bool:
        """Return whether a value is given and not null."""
        return self._fields.get(name) is not None

    def text(self, name: str, default: str | None = None, *, empty: bool = True) -> str:
        """Return a text; required without a default.

        Args:
            name: The parameter.
            default: Its value when none is given.
            empty: Whether it may be empty.

        Raises:
            MlflowError: INVALID_PARAMETER_VALUE when it is missing or not a text.
        """
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self._not_a(name, "a string", value)
        if not value and not empty and default is None:
            raise self._missing(name)
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number of 64 bits; required without a default. Raises as `text`."""
        value = self._value(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise self._not_a(name, "an integer", value) from None
        if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
            raise self._not_a(name, "an integer of 64 bits", value)
        return value

    def number(self, name: str) -> float:
        """Return a number; NaN and the infinities are given by their names. Raises as `text`."""
        value = self._value(name, None)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self._not_a(name, "a number", value)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise self._not_a(name, "a number", value) from None
        if isinstance(value, str) and math.isfinite(number) and value.strip() != value:
            raise self._not_a(name, "a number", value)
        return number

    def boolean(self, name: str) -> bool:
        """Return a boolean, false by default. Raises as `text`."""
        value = self._value(name, False)
        if value in ("true", "True"):
            return True
        if value in ("false", "False"):
            return False
        if not isinstance(value, bool):
            raise self._not_a(name, "a boolean", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, empty by default. Raises as `text`."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, str):
                raise self._not_a(name, "a list of strings", value)
        return values

    def objects(self, name: str) -> list[Parameters]:
        """Return a list of objects, empty by default. Raises as `text`."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, dict):
                raise self._not_a(name, "a list of objects", value)
        return [Parameters(value, f"{self._where}{name}[{number}].") for number, value in enumerate(values)]

    def object(self, name: str) -> Parameters:
        """Return an object, which is required. Raises as `text`."""
        value = self._value(name, None)
        if not isinstance(value, dict):
            raise self._not_a(name, "an object", value)
        return Parameters(value, f"{self._where}{name}.")

    def pairs(self, name: str, *, default_value: str | None = "") -> dict[str, str]:
        """Return a list of objects with a key and a value as a mapping, empty by default. Raises as `text`."""
        return {pair.text("key"): pair.text("value", default_value) for pair in self.objects(name)}

    def _list(self, name: str) -> list[Any]:
        value = self._fields.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._not_a(name, "a list", value)
        return value

    def _value(self, name: str, default: Any) -> Any:
        value = self._fields.get(name)
        if value is not None:
            return value[-1] if self._from_query else value
        if default is None:
            raise self._missing(name)
        return default

    def _missing(self, name: str) -> MlflowError:
        return invalid(f"missing value for required parameter '{self._where}{name}'")

    def _not_a(self, name: str, wanted: str, value: Any) -> MlflowError:
        shown = repr(value)[:200]
        return invalid(f"invalid value {shown} for parameter '{self._where}{name}': expected {wanted}")
