"""The one small tree of errors that a person may be shown; everything else is a bug and is logged.

Each carries the HTTP status that the page's routes answer with; the command line exits with 2 on any of them.
A message is one plain sentence: what was found, what was expected, and where it helps, what to do.
It never holds a patient identifier or a path outside the upload.
"""


class ReadingRoomError(Exception):
    """Base of all errors whose text is meant for the reader."""

    status = 500


class Refused(ReadingRoomError):
    """The input is not acceptable: nothing was stored."""

    status = 422


class TooLarge(Refused):
    """The input is over a stated limit."""

    status = 413


class NotFound(ReadingRoomError):
    """There is no such study, segment or version, or this reader may not see it."""

    status = 404


class Conflict(ReadingRoomError):
    """Someone else changed it first, or it is signed and may not change."""

    status = 409


class ModelMissing(ReadingRoomError):
    """A model that the task needs is not prepared here; the message names the command that prepares it."""

    status = 503


class Busy(ReadingRoomError):
    """The bounded queue is full or the store is locked: try again in a moment; nothing was lost."""

    status = 503


class Cancelled(ReadingRoomError):
    """The reader stopped the work; what was there before stays."""

    status = 499


class TimedOut(ReadingRoomError):
    """The work took longer than its limit and was stopped; what was there before stays."""

    status = 504
