"""Arguments of the command line that describe a token."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import click
import msgspec
from nats.aio.client import Client

from tallystick.contracts import messages, validation
from tallystick.contracts.accounts import GET_ACCOUNT, GetAccount
from tallystick.contracts.messages import FieldError
from tallystick.contracts.operation import Failure
from tallystick.contracts.records import RateLimit, Restrictions
from tallystick.contracts.tokens import RateLimitUpdate, RestrictionsUpdate, TokenUpdate
from tallystick.rpc.call import call
from tallystick.tokens import rules
from tallystick_server.cli.connection import inquire, operator
from tallystick_server.cli.output import fail
from tallystick_server.runtime.lifecycle import EX_DATAERR

NO_SUCH_ACCOUNT = FieldError(field="account", message="no such account")
_FAULTS = "tallystick.faults"
_FIELDS = {
    "scopes": "scopes",
    "metadata": "metadata",
    "expires": "expires",
    "not_before": "notBefore",
    "rate_limit": "restrictions.rateLimit",
}
"""The field that an option is about."""


class Time(click.ParamType[datetime]):
    """A time with its zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return msgspec.convert(value, messages.Time)
        except msgspec.ValidationError:
            self.fail("a time with its zone, as in 2027-01-31T00:00:00Z", param, ctx)


class TokenId(click.ParamType[str]):
    """A token's public id; its secret has no place among arguments, which other programs see."""

    name = "tok_..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        del param, ctx
        if not str(value).startswith("tok_"):
            fail(
                "name a token by its id (tok_...), never by the token itself: other users can see arguments",
                EX_DATAERR,
            )
        return str(value)


class Rate(click.ParamType[RateLimit]):
    """``100/60``: requests in a window of seconds."""

    name = "requests/seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RateLimit:
        requests, _, window = str(value).partition("/")
        if not (requests.isdecimal() and window.isdecimal()):
            self.fail("requests/seconds, as in 100/60", param, ctx)
        return RateLimit(max_requests=int(requests), time_window=int(window))


class Metadata(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            return msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            self.fail("a JSON object", param, ctx)


class FieldOption(click.Option):
    """An option that leaves a value that cannot be read to its `TokenCommand`, which reports all of them."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.BadParameter as error:
            message = "missing" if isinstance(error, click.MissingParameter) else error.message
            field = _FIELDS.get(self.name or "", self.name or "")
            ctx.meta.setdefault(_FAULTS, []).append(FieldError(field=field, message=message))
            return None, args


class TokenCommand(click.Command):
    """Reports everything that is wrong with a token's fields at once, if some of them cannot be read. If all can, the
    tokens service does.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if faults := ctx.meta.get(_FAULTS):
            all_faults = validation.and_rules(faults, update(ctx.params))
            all_faults = validation.with_others(all_faults, _account_faults(ctx.params.get("account")))
            raise click.UsageError("\n".join(f"{fault.field}: {fault.message}" for fault in all_faults), ctx)
        return rest


def _account_faults(account: str | None) -> tuple[FieldError, ...]:
    """What is wrong with a token's account, if the token is not requested since other fields are invalid."""
    if account is None:
        return ()
    if not rules.is_account(account):
        return (FieldError(field="account", message=rules.ACCOUNT_FAULT),)
    missing = missing_accounts([account])
    return (NO_SUCH_ACCOUNT,) if missing else ()


def missing_accounts(names: Iterable[str]) -> set[str]:
    """The accounts that do not exist, as far as the services can be asked."""

    async def missing(client: Client) -> set[str]:
        absent = set()
        for name in names:
            question = GetAccount(account=name, actor=operator())
            reply = await call(client, GET_ACCOUNT.by_operator, question)
            if isinstance(reply, Failure) and reply.code == "not_found":
                absent.add(name)
        return absent

    return inquire(missing) or set()


def update(options: Mapping[str, Any]) -> TokenUpdate:
    """The edit that sets the fields which options give."""
    names = {*TokenUpdate.__struct_fields__, *Restrictions.__struct_fields__}
    fields = {name: value for name, value in options.items() if name in names and value not in (None, ())}
    for name in options.get("clear", ()):
        fields[name.replace("-", "_")] = None
    limits = {name: fields.pop(name) for name in Restrictions.__struct_fields__ if name in fields}
    if limits.get("rate_limit") is not None:
        limits["rate_limit"] = RateLimitUpdate(**msgspec.structs.asdict(limits["rate_limit"]))
    if limits:
        fields["restrictions"] = RestrictionsUpdate(**limits)
    return TokenUpdate(**fields)
