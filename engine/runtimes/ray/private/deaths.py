"""Processes that have ended, noticed in the moment in which they do."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable


class Deaths:
    """Knows at once whether one of some processes has ended, as by SIGKILL.

    Where the system cannot tell at once (`pidfd_open` needs Linux 5.3), none is seen to end, and others have to say it.

    Args:
        processes: their numbers. One that has ended already is seen to have, unless its number is another's by now.
    """

    def __init__(self, processes: Iterable[int]) -> None:
        # Not select.select, which takes no descriptors from 1,024 on.
        self._poll = select.poll()
        self._descriptors: list[int] = []
        self._is_one_gone, self._sees_all = False, True
        for process in processes:
            try:
                descriptor = os.pidfd_open(process)
            except ProcessLookupError:
                self._is_one_gone = True
            except (OSError, AttributeError):
                self._sees_all = False
            else:
                self._descriptors.append(descriptor)
                self._poll.register(descriptor, select.POLLIN)

    @property
    def see_all(self) -> bool:
        """Whether the system tells at once of each of them."""
        return self._sees_all

    def seen(self) -> bool:
        """Return whether one of them has ended; takes microseconds."""
        self._is_one_gone = self._is_one_gone or bool(self._descriptors and self._poll.poll(0))
        return self._is_one_gone

    def close(self) -> None:
        """Look no more: whatever has ended until now stays known."""
        descriptors, self._descriptors = self._descriptors, []
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
