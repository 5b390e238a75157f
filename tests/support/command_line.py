"""Commands in the test's own process, against an `up` that runs."""

from click.testing import CliRunner, Result

from tallystick_server.__main__ import program
from tests.support.up import Up


def invoke(up: Up, *arguments: str, stdin: str | bytes = "", group: str = "tokens") -> Result:
    assert up.running
    environment = {"TALLYSTICK_NATS_URL": up.running.operator_url}
    return CliRunner().invoke(program, [group, *arguments], input=stdin, env=environment)
