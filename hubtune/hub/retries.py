"""Repeat requests to the Hub that failed for a passing reason: overload, rate limits, the network.

The Hub's client repeats uploads and parts of downloads, but neither questions nor commits.
Every wait is logged to the logger `hubtune`, which the command line prints.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from hubtune.hub.errors import http_error, is_xet_error, status_of

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between attempts, where the Hub does not say how long to wait."""
WAITS_UNREACHABLE = WAITS[:2]
"""The same where no connection is made at all: the network is off, or the endpoint is wrong."""
PATIENCE = 300.0
"""Longest wait in seconds that the Hub may ask for; above it, the request fails at once."""
RESET = re.compile(r"\bt=(\d+)")
"""Seconds until the window of a `RateLimit` header ends (IETF draft RateLimit header fields)."""

JITTER = random.Random()
"""Spreads waits; its own state, since the global one is the caller's."""

ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


def retry(request: Callable[[], ResultT], what: str,
          instead: Callable[[Exception], ResultT | None] | None = None) -> ResultT:
    """Send a request until it succeeds, fails for good, or attempts run out.

    Args:
        request: Sends it; must be safe to repeat, unless `instead` finds what has arrived.
        what: Name of the request, for messages.
        instead: Called after a passing failure; a result other than None is returned. Looks for
            what a lost response hides, or takes an answer from elsewhere.

    Raises:
        Exception: the client's last error.
    """
    for attempt in range(len(WAITS) + 1):
        try:
            return request()
        except (http_error(), ConnectionError, TimeoutError, OSError, RuntimeError) as error:
            if not is_passing(error):
                raise
            found = instead(error) if instead else None
            if found is not None:
                return found
            waits = WAITS_UNREACHABLE if is_unreachable(error) else WAITS
            asked = requested_wait(error)
            if attempt >= len(waits) or (asked or 0.0) > PATIENCE:
                raise
            seconds = waits[attempt] * JITTER.uniform(1.0, 1.25) if asked is None else asked
            log.warning("%s: %s; trying again in %.0f s (attempt %d of %d).", what, describe(error),
                        seconds, attempt + 2, len(waits) + 1)
            time.sleep(seconds)
    raise AssertionError("unreachable")


def is_passing(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        return status in PASSING
    if str(error).startswith("Consistency check failed"):  # a download that ended early
        return True
    return isinstance(error, http_error() | ConnectionError | TimeoutError) or is_xet_error(error)


def is_unreachable(error: Exception) -> bool:
    """Return whether no connection was made, as with a network that is off."""
    return type(error).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionRefusedError")


def requested_wait(error: Exception) -> float | None:
    """Return the seconds that the Hub asks to wait, from `Retry-After` or `RateLimit`; None without
    them.
    """
    response: Any = getattr(error, "response", None)
    headers: Mapping[str, str] = {} if response is None else response.headers
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None
    found = RESET.search(headers.get("RateLimit", ""))
    return float(found[1]) if found else None


def describe(error: Exception) -> str:
    """Describe a failed request in a few words: the status, or the kind of network error."""
    status = status_of(error)
    return f"the Hub answered {status}" if status is not None else f"no answer from the Hub ({type(error).__name__})"
