"""Errors that a person reads: one sentence of what is wrong, one of what to do."""


class PipelineError(Exception):
    """The work failed.

    Args:
        message: What was wrong and where, one sentence.
        remedy: What to do about it, one sentence; empty if there is nothing to do.
        detail: Lines that help to find the cause: the end of a log.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy, self.detail = message, remedy, detail

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(PipelineError):
    """Bad usage or settings: nothing has been done."""

    exit_code = 2
