"""Parses the flags of a command and answers mistakes in one line."""

import functools
import io
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TextIO

from absl import flags

from data import prepared
from trainers import errors, quiet
from trainers.training import workers

_CONFIG = "--config."
# Flags that absl adds.
_ABSL_OWN = ("flagfile", "undefok")


def speak_as(worker: workers.Worker) -> None:
    """Prefixes every line of output with the worker, if there are several."""
    if worker.count > 1:
        name = f"[worker {worker.index + 1} of {worker.count}] "
        sys.stdout = _Named(sys.stdout, name)
        sys.stderr = _Named(sys.stderr, name)


class _Named(io.TextIOBase):
    """Prefixes each line with a name."""

    def __init__(self, stream: TextIO, name: str):
        self._stream = stream
        self._name = name
        self._at_start = True

    def write(self, text: str) -> int:
        lines = text.splitlines(keepends=True)
        for line in lines:
            self._stream.write(self._name + line if self._at_start else line)
            self._at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def with_flags(
    values: flags.FlagValues, description: str, *required: str
) -> Callable[[Callable[[], int]], Callable[[Sequence[str]], int]]:
    """Turns a function into a command, called after the flags are parsed.

    Args:
        values: The flags; filled in.
        description: The first lines of the help.
        *required: Flags that must be given.

    Returns:
        A decorator. The command takes the command line without the program
        and returns the exit code; it raises a `UserError` for an unknown flag
        or an invalid value.
    """

    def decorate(function: Callable[[], int]) -> Callable[[Sequence[str]], int]:
        @functools.wraps(function)
        def main(arguments: Sequence[str]) -> int:
            texts = _read(values, description, required, arguments)
            if texts is None:
                return 0
            refuse_positional([f"{_CONFIG}{name}" for name in texts])
            return function()

        return main

    return decorate


def with_config(
    values: flags.FlagValues, description: str, *required: str
) -> Callable[
    [Callable[[dict[str, str]], int]], Callable[[Sequence[str]], int]
]:
    """Is `with_flags` for a function that takes the `--config.FIELD` texts."""

    def decorate(
        function: Callable[[dict[str, str]], int],
    ) -> Callable[[Sequence[str]], int]:
        @functools.wraps(function)
        def main(arguments: Sequence[str]) -> int:
            texts = _read(values, description, required, arguments)
            return 0 if texts is None else function(texts)

        return main

    return decorate


def _read(
    values: flags.FlagValues,
    description: str,
    required: Sequence[str],
    arguments: Sequence[str],
) -> dict[str, str] | None:
    """Returns the `--config.FIELD` texts, or None after printing the help."""
    parsed = parse(values, arguments, description)
    if parsed is None:
        return None
    positional, texts = parsed
    refuse_positional(positional)
    require(values, *required)
    return texts


def parse(
    values: flags.FlagValues, arguments: Sequence[str], description: str
) -> tuple[list[str], dict[str, str]] | None:
    """Parses the command line.

    Args:
        values: The flags; filled in.
        arguments: The command line without the program.
        description: The first lines of the help.

    Returns:
        The positional arguments, and the `--config.FIELD` texts by field; None
        after printing the help.

    Raises:
        UserError: For an unknown flag or an invalid value.
    """
    values.unparse_flags()
    if {"--help", "-help", "-h"} & {*arguments}:
        print(f"{description}\n{_help(values)}")
        return None
    texts, rest = {}, []
    for argument in arguments:
        if not argument.startswith(_CONFIG):
            rest.append(argument)
            continue
        name, equals, text = argument.removeprefix(_CONFIG).partition("=")
        if not equals:
            raise errors.UserError(
                f"{argument}: got no value, expected {argument}=VALUE."
            )
        texts[name] = text
    try:
        return values(["command", *rest])[1:], texts
    except flags.Error as error:
        text = " ".join(str(error).split())
        raise errors.UserError(f"{text} (see --help)") from None


def _help(values: flags.FlagValues) -> str:
    texts = []
    for name in sorted(set(values) - set(_ABSL_OWN)):
        flag = values[name]
        text = flag.help
        if flag.default is not None:
            text += f" (default: {flag.default_as_str})"
        texts.append(f"  --{name}")
        for line in text.splitlines():
            texts += textwrap.wrap(
                line,
                79,
                initial_indent=" " * 6,
                subsequent_indent=" " * 8,
                # A name that is cut cannot be pasted.
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(texts)


def require(values: flags.FlagValues, *names: str) -> None:
    """Raises a `UserError` for missing flags."""
    missing = [f"--{name}" for name in names if values[name].value is None]
    if missing:
        raise errors.UserError(
            f"{', '.join(missing)}: got nothing, expected a value (see --help)."
        )


def refuse_positional(positional: Sequence[str]) -> None:
    """Raises a `UserError` if there are positional arguments."""
    if positional:
        raise errors.UserError(
            f"got {' '.join(positional)!r}, expected flags only; write "
            "--NAME=VALUE (see --help)."
        )


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Runs a command and exits.

    Args:
        main: Takes the command line without the program; returns the exit
            code.
    """
    quiet.silence_libraries()
    sys.exit(guarded(main, sys.argv[1:]))


def guarded(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str]
) -> int:
    """Calls a command; a user's mistake becomes one line on stderr.

    Args:
        main: The command.
        arguments: The command line without the program.

    Returns:
        The exit code: 2 for a user's mistake, 75 (EX_TEMPFAIL) if the run was
        cut off and the same command resumes it, 130 if interrupted, 141 if
        nobody reads the output, as in `| head`.
    """
    try:
        code = main(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _output_closed()
    except (errors.UserError, prepared.DataError) as error:
        if isinstance(error.__context__, BrokenPipeError):
            return _output_closed()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except errors.InterruptedRunError as error:
        print(f"{error}; run the same command to resume.", file=sys.stderr)
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume.", file=sys.stderr)
        return 130


def _output_closed() -> int:
    """Returns the exit code of a process that SIGPIPE ends."""
    # Python flushes stdout once more at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno())
    os.close(nowhere)
    return 128 + signal.SIGPIPE
