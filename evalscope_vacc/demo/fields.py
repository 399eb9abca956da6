"""Typed access to a request's JSON, refusing as vLLM's validation does: status 400, and the field's place named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from evalscope_vacc.demo.engine import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_Choice = TypeVar("_Choice", bound="str | None")


def invalid(kind: str, place: str, message: str, value: object) -> RefusedError:
    """A validation error; a text is described and not repeated, because errors end up in logs."""
    if isinstance(value, (dict, list)):
        shown = f"<{type(value).__name__} of {len(value)} items>"
    elif isinstance(value, str):
        shown = f"<str of {len(value)} characters>"
    else:
        shown = str(value)
    return RefusedError(
        f"1 validation error:\n  {{'type': '{kind}', 'loc': '{place}', 'msg': '{message}', 'input': '{shown}'}}",
        kind="Bad Request",
        param=place,
    )


class Fields:
    """One request's body.

    Args:
        body: The parsed JSON.

    Raises:
        RefusedError: The body is no object; so do all methods for a field that is missing or of the wrong type.
    """

    def __init__(self, body: object) -> None:
        if not isinstance(body, dict):
            raise invalid("model_attributes_type", "body", "Input should be a valid dictionary", body)
        self._body: Mapping[str, Any] = body

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._body.get(name) is not None

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self._required(name)
        if not isinstance(value, str):
            raise invalid("string_type", f"body.{name}", "Input should be a valid string", value)
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None where it is missing or null."""
        return self.text(name) if self.has(name) else None

    def texts(self, name: str) -> list[str]:
        """A list of strings; a single one counts as a list of one."""
        value = self._required(name)
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid("string_type", f"body.{name}", "Input should be a valid string", value)
        return value

    def prompts(self, name: str) -> Sequence[str | Sequence[int]]:
        """A text, texts, token ids, or lists of token ids."""
        value = self._required(name)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list):
            if all(isinstance(item, str) for item in value):
                return value
            if all(_is_token(item) for item in value):
                return [value]
            if all(isinstance(item, list) and all(_is_token(token) for token in item) for item in value):
                return value
        raise invalid("list_type", f"body.{name}", "Input should be a valid list", value)

    def token_ids(self, name: str) -> list[int]:
        """A list of token ids."""
        value = self._required(name)
        if not isinstance(value, list) or not all(_is_token(item) for item in value):
            raise invalid("list_type", f"body.{name}", "Input should be a valid list", value)
        return value

    def integer(self, name: str, *, least: int | None = None, nullable: bool = True) -> int | None:
        """An integer, or None where it is missing (or null, if that is allowed)."""
        value = self._body.get(name)
        if value is None and (nullable or name not in self._body):
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise invalid("int_type", f"body.{name}", "Input should be a valid integer", value)
        if least is not None and value < least:
            message = f"Input should be greater than or equal to {least}"
            raise invalid("greater_than_equal", f"body.{name}", message, value)
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """A boolean, or its default."""
        value = self._body.get(name, default)
        if not isinstance(value, bool):
            raise invalid("bool_type", f"body.{name}", "Input should be a valid boolean", value)
        return value

    def choice(self, name: str, allowed: Sequence[_Choice], default: _Choice) -> _Choice:
        """One of the allowed strings, or the default where it is missing or null."""
        value = self._body.get(name)
        if value is None:
            return default
        for choice in allowed:
            if value == choice:
                return choice
        words = " or ".join(f'"{choice}"' for choice in allowed)
        raise invalid("literal_error", f"body.{name}", f"Input should be {words}", value)

    def _required(self, name: str) -> Any:
        if name not in self._body:
            raise invalid("missing", f"body.{name}", "Field required", self._body)
        return self._body[name]


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
