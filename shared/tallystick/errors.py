"""What the library raises."""

from collections.abc import Mapping

from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import Token


class Unavailable(Exception):
    """Something this service needs did not answer in time. The text is shown to the operator."""


class Refused(Exception):
    """A request that is rejected, and why. `tallystick_server.edge.http.errors` says it over HTTP."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: tuple[FieldError, ...] = (),
        scope: str | None = None,
        address: str | None = None,
        current: Token | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.scope = scope
        self.address = address
        self.current = current
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, failure: Failure) -> "Refused":
        return cls(
            failure.code,
            failure.message,
            errors=failure.errors,
            scope=failure.scope,
            current=failure.current,
        )
