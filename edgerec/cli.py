"""``edgerec``: a lazy group, so that ``--help`` imports no stage.

Each command lives in the ``commands`` module of its stage, beside the code that it calls. ``COMMANDS`` maps the verb to
the module and to its one-line help; a test checks that each line equals the command's own.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

import click

from edgerec import __version__
from edgerec.errors import EdgerecError

COMMANDS = {
    "data": ("edgerec.commands", "Fetch, inspect and prepare logs and catalogues."),
    "fine-tune": ("edgerec.distill.commands", "Train a teacher: a text encoder and two towers on one log."),
    "fine-tune-cross": (
        "edgerec.distill.cross_commands",
        "Train a cross-encoder: a second teacher that reranks what the first one finds.",
    ),
    "distill": ("edgerec.distill.commands", "Distill a teacher's text encoder into a small student."),
    "prune": ("edgerec.export.prune_commands", "Prune a model's text encoder, and let it recover by distillation."),
    "sparsify": (
        "edgerec.distill.sparse_commands",
        "Set a share of a student's weights to zero, 2:4 or by size, and distill on.",
    ),
    "qat": ("edgerec.distill.sparse_commands", "Distill a student on with the rounding of INT8 in it."),
    "export": (
        "edgerec.export.commands",
        "Compile a teacher or student folder into one .edgerec file, or for another engine.",
    ),
    "quantize": (
        "edgerec.export.commands",
        "Measure a model's file in every precision, and write the best one within an accuracy budget.",
    ),
    "run-kit": (
        "edgerec.export.commands",
        "Open a TensorRT kit by the best way there is here, and replay its golden requests.",
    ),
    "keygen": ("edgerec.signing_commands", "Make a pair of Ed25519 keys, to sign bundles and deltas with."),
    "sign": ("edgerec.signing_commands", "Sign a bundle or a delta."),
    "delta": ("edgerec.runtime.commands", "Write what is added to a bundle's catalogue, or removed, as a small file."),
    "verify": ("edgerec.runtime.commands", "Replay a bundle's golden requests on this device."),
    "evaluate": (
        "edgerec.benchmarks.commands",
        "Score baselines, models, bundles and peers on one data set; with --study, train what is scored.",
    ),
    "bench": (
        "edgerec.benchmarks.bench_commands",
        "Measure speed, memory, start and accuracy; compare, report and audit.",
    ),
    "recommend": ("edgerec.runtime.commands", "Recommend items after a history, oldest first."),
    "search": ("edgerec.runtime.commands", "Search the catalogue by text."),
    "similar": ("edgerec.runtime.commands", "Find the items nearest to one."),
    "explain": ("edgerec.runtime.commands", "Explain an item's place after a history, oldest first."),
    "serve": (
        "edgerec.runtime.serve_commands",
        "Serve a bundle over HTTP; a new file under its name is taken without a pause.",
    ),
    "demo": (
        "edgerec.export.commands",
        "Fetch, fine-tune, distill, export, verify, recommend and evaluate on ml-100k.",
    ),
    "doctor": ("edgerec.commands", "Print versions, CPU features, providers and missing extras."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in pipeline order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="edgerec")
def group() -> None:
    """Recommenders that fit on the device: log and catalogue in, one small file out."""


def ended(number: int, frame: object) -> NoReturn:
    """End as a shell tells that a signal ended a process."""
    sys.exit(128 + number)


def main(command: click.Command = group) -> NoReturn:
    """Run the command line, or a script's command; an ``EdgerecError`` becomes a line on stderr and its exit code."""
    # so that what is under way is put back: workers, temporary files, a board's clocks
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ended)
    try:
        sys.exit(command.main(standalone_mode=False))  # None, or the code of a command that found what it looked for
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgerecError as error:
        click.echo(f"edgerec: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)
