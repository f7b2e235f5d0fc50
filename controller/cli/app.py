"""The command tree: one noun each, and the options of `cordon` itself."""

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from controller.cli import (
    access,
    account,
    approvals,
    audit,
    ca,
    certificates,
    commands,
    controllers,
    enrol,
    guard,
    knowledge,
    notify,
    rollouts,
    store,
    tokens,
    waivers,
)
from controller.cli import backup as backup_commands
from controller.cli import doctor as doctor_command
from controller.cli import init as init_command
from controller.cli import serve as serve_command
from controller.cli.broker import app as broker
from controller.cli.devices import app as devices
from controller.cli.errors import ExitCode, code_of
from controller.cli.keys import app as keys
from controller.cli.output import note, say
from controller.cli.policy import app as policy
from controller.cli.quarantine import app as quarantine
from controller.cli.updates import app as updates
from controller.ports.errors import ControllerError

_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

app = typer.Typer(
    name="cordon",
    help="Evaluates device posture, contains violations at the broker, repairs and releases.",
    epilog="Exit status: 0 done, 1 the answer is no, 2 wrong usage or configuration, 3 no answer, 4 not allowed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_CONTEXT,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # reads files

        say(f"cordon {version('emqx-cordon')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Evaluates device posture, contains violations at the broker, repairs and releases."""


app.command("serve")(serve_command.serve)
app.command("init")(init_command.init)
app.command("backup")(backup_commands.backup)
app.command("restore")(backup_commands.restore)
app.command("revoke")(certificates.revoke)
app.command("doctor")(doctor_command.doctor)
for name, noun in (
    ("devices", devices.app),
    ("quarantine", quarantine.app),
    ("command", commands.app),
    ("keys", keys.app),
    ("guard", guard.app),
    ("approval", approvals.app),
    ("policy", policy.app),
    ("knowledge", knowledge.app),
    ("waiver", waivers.app),
    ("audit", audit.app),
    ("dead-letters", audit.letters),
    ("access", access.app),
    ("broker", broker.app),
    ("update", updates.app),
    ("account", account.app),
    ("token", tokens.app),
    ("ca", ca.app),
    ("certificates", certificates.app),
    ("enrol", enrol.app),
    ("rollout", rollouts.app),
    ("notify", notify.app),
    ("store", store.app),
    ("controllers", controllers.app),
):
    app.add_typer(noun, name=name)


# These commands parse their own options: every other command would wait for their imports.
_PASSES_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("demo", context_settings=_PASSES_ON, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Demonstrate containment, repair and release with simulated devices; `cordon demo --help` lists the options."""
    from controller.demo.command import demo as run

    alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    alone.command(context_settings=_CONTEXT)(run)
    alone(context.args, prog_name="cordon demo")


@app.command("demo-update", context_settings=_PASSES_ON, add_help_option=False)
def demo_update(context: typer.Context) -> None:
    """Demonstrate a good and a bad rollout; `cordon demo-update --help` lists the options."""
    from controller.demo.command import demo_update as run

    alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    alone.command(context_settings=_CONTEXT)(run)
    alone(context.args, prog_name="cordon demo-update")


@app.command("standin", context_settings=_PASSES_ON, add_help_option=False)
def standin(context: typer.Context) -> None:
    """Run an EMQX stand-in, to try Cordon without Docker; `cordon standin --help` shows its options."""
    from controller.standin.__main__ import main

    raise typer.Exit(main(context.args))


def run_safely(argv: Sequence[str]) -> int:
    """Runs `cordon` with these arguments; returns the exit code."""
    try:
        app(list(argv), prog_name="cordon")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else ExitCode.OK
    except ControllerError as e:
        note(f"cordon: {e}")
        return code_of(e)
    return ExitCode.OK
