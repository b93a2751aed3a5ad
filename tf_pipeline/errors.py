"""The one error that a user can cause, and those that protect the user."""

USER_ERROR_EXIT = 2
PARITY_EXIT = 3
RESUMABLE_EXIT = 75  # "try again later" in BSD's sysexits.h
# `doctor` adds up what would not work; above every other code, so that none is taken for it.
DOCTOR_EXIT = {"training": 8, "export": 16, "serving": 32}


class UserError(ValueError):
    """Says what is wrong, the value received, what is allowed and what to do.

    A command line prints it as one line and exits with 2.
    """


def wrong_backend(name: str) -> UserError:
    """Say which of Keras's backends the kit trains with."""
    return UserError(f"Keras's backend is {name} (KERAS_BACKEND, or keras.json in ~/.keras); "
                     "allowed: tensorflow, jax. Set KERAS_BACKEND=tensorflow.")


class DivergedError(UserError):
    """The loss of a training step is no number any more."""


class Preempted(RuntimeError):
    """SIGTERM came while training; a checkpoint is written, `--resume` goes on. Exit code 75."""


class ParityError(RuntimeError):
    """A file does not give the trained model's answers; nothing was published. Exit code 3."""
