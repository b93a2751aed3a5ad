"""What a server refuses for another reason than a wrong request."""

from tf_pipeline.errors import UserError

GONE = 499  # as nginx counts a client that closed the connection before its answer


class NotFound(UserError):
    """No such model, version or label is served."""


class Busy(UserError):
    """More waits than can be answered in time; `retry_after_s` says when there may be room."""

    def __init__(self, message: str, retry_after_s: int):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Late(UserError):
    """The request's deadline has passed."""
