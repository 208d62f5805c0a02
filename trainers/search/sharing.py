"""Sharing a search among processes, in keras-tuner's way.

One process, whose KERASTUNER_TUNER_ID is `chief`, hands out the trials. The
others have other names and carry them out. All of them have the chief's
address in KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT.
"""

import contextlib
import os
from collections.abc import Iterator

import grpc

from trainers import errors

NAME = "KERASTUNER_TUNER_ID"
_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def role() -> str | None:
    """Returns `chief` or `worker`, or None for a search of one process.

    Raises:
        UserError: If some of the environment variables are missing or wrong.
    """
    names = (NAME, *_ADDRESS)
    if not any(name in os.environ for name in names):
        return None
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise errors.UserError(
            f"{', '.join(missing)}: got nothing, expected values for all of "
            f"{', '.join(names)}, or for none of them."
        )
    port = os.environ[_ADDRESS[1]]
    if not port.isdecimal():
        raise errors.UserError(
            f"{_ADDRESS[1]}: got {port!r}, expected the number of a port."
        )
    return "chief" if "chief" in os.environ[NAME] else "worker"


def address() -> str:
    """Returns the chief's address."""
    return ":".join(os.environ[name] for name in _ADDRESS)


@contextlib.contextmanager
def connection() -> Iterator[None]:
    """Explains why the chief cannot listen or does not answer.

    Raises:
        UserError: If that is so, in place of what keras-tuner raises.
    """
    try:
        yield
    except RuntimeError as error:
        if role() != "chief":
            raise
        raise errors.UserError(
            f"{address()}: the chief cannot listen there ({error}); give an "
            f"address of this machine and a free port in "
            f"{' and '.join(_ADDRESS)}."
        ) from None
    except grpc.RpcError as error:
        raise errors.UserError(
            f"{address()}: the chief of the search does not answer "
            f"({error.code().name}); start it again, then this worker."
        ) from None
