# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: `pyx86v COMMAND GUEST [options]`.

Whatever is wrong with what the user gave is one line on standard error and status 2.
"""
import os
import sys

import click

from pyx86v import __version__
from pyx86v.cli.commands import COMMANDS

BAD, INTERRUPTED = 2, 130


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pyx86v")
@click.pass_context
def pyx86v(context):
    """One x86 guest under every style of virtualization, every cycle booked to a cause.

    \b
    Try:
      pyx86v roms                        the bundled guests
      pyx86v run sieve                   run one and see where its cycles went
      pyx86v compare ptestorm            the same guest natively and under VT-x with EPT
      pyx86v exits modes                 its exits, as perf kvm stat shows them
      pyx86v profiles skylake            every price, with its source
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in COMMANDS:
    pyx86v.add_command(command)


def main(arguments=None):
    """The entry point; ends the process with the guest's status, 124, 130 or 2."""
    ensure_streams()
    try:
        status = pyx86v.main(arguments, prog_name="pyx86v", standalone_mode=False)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except BrokenPipeError:                     # the reader of a pipe has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except click.ClickException as error:
        status = fail(error.format_message())
    except (ValueError, OSError, ImportError) as error:
        status = fail(str(error))
    sys.exit(status or 0)


def ensure_streams():
    """The null device for each standard stream that the process was started without (`>&-`)."""
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def fail(text):
    """One line for what the user got wrong."""
    print("pyx86v:", " ".join(text.split()), file=sys.stderr)
    return BAD
