"""What can go wrong in a run without being a fault of the program."""


class UserError(Exception):
    """Something asked for is not possible; the message is one line."""


class DivergedError(Exception):
    """A loss is no longer a finite number."""


class InterruptedRunError(Exception):
    """A run was cut off from outside; the same command continues it."""
