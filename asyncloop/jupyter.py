"""`python -m asyncloop.jupyter install`: a Jupyter kernel whose loop is asyncloop's.

The kernel is ipykernel's, with its own command line behind `python -m asyncloop`: so the Python
processes that it starts run on asyncloop as well. Other kernels stay as they are.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from ._command import Parser, Trouble

__all__ = ["main"]

_NAME = "asyncloop"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m asyncloop.jupyter", description="A Jupyter kernel that runs on asyncloop."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="make it one of those that Jupyter offers")
    where = install.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user, which is the default")
    where.add_argument(
        "--sys-prefix", action="store_true", help="in the environment that this Python is in"
    )
    where.add_argument("--prefix", help="below that folder, in share/jupyter/kernels")
    install.add_argument("--display-name", help="what notebooks show")
    install.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable for the kernel, such as ASYNCLOOP_WATCHDOG=0.1; may be repeated",
    )
    remove = commands.add_parser("remove", help="the end of that")
    for each in (install, remove):
        each.add_argument("--name", default=_NAME, help="of the kernel (default: asyncloop)")
    return parser


def _packages() -> tuple[Any, Any]:
    try:
        from ipykernel import kernelspec as of_ipykernel
        from jupyter_client import kernelspec as of_client
    except ImportError as error:
        raise Trouble(
            f"{error}; {sys.executable} needs ipykernel: pip install ipykernel"
        ) from None
    return of_ipykernel, of_client


def _variables(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not name or not equals:
            raise Trouble(f"--env needs NAME=VALUE, not {text!r}")
    return {name: value for name, _, value in pairs}


def command_of(argv: Sequence[str]) -> list[str]:
    """A kernel's command line, with asyncloop before the module that it runs."""
    at = argv.index("-m")
    return [*argv[:at], "-m", "asyncloop", *argv[at:]]


def _install(options: argparse.Namespace) -> str:
    of_ipykernel, of_client = _packages()
    spec = of_ipykernel.get_kernel_dict()
    changes = {
        "argv": command_of(spec["argv"]),
        "display_name": options.display_name or f"{spec['display_name']} on asyncloop",
        "env": {**spec.get("env", {}), **_variables(options.env)},
    }
    prefix = sys.prefix if options.sys_prefix else options.prefix
    with tempfile.TemporaryDirectory() as folder:
        path = of_ipykernel.write_kernel_spec(f"{folder}/kernel", overrides=changes)
        return str(
            of_client.KernelSpecManager().install_kernel_spec(
                path, kernel_name=options.name, user=prefix is None, prefix=prefix
            )
        )


def _remove(options: argparse.Namespace) -> str:
    _, of_client = _packages()
    try:
        return str(of_client.KernelSpecManager().remove_kernel_spec(options.name))
    except KeyError:  # NoSuchKernel
        raise Trouble(f"there is no kernel {options.name}") from None


def main(arguments: Sequence[str]) -> int:
    """Run a command, and return the exit status."""
    options = _parser().parse_args(arguments)
    install = options.command == "install"
    try:
        path = _install(options) if install else _remove(options)
    except (Trouble, OSError, ValueError) as trouble:
        sys.stderr.write(f"asyncloop: {trouble}\n")
        return 2
    print(f"{'installed as' if install else 'removed'} {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
