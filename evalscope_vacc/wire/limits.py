"""How much a server takes in one request, learnt from what it answered and what it refused."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evalscope_vacc.errors import InputTooLongError, ServerError
from evalscope_vacc.wire.messages import Request
from evalscope_vacc.wire.refusals import batch_limit, is_about_size

logger = logging.getLogger(__name__)


@dataclass
class _Endpoint:
    """What is known of one endpoint.

    Attributes:
        taken: The most items that were answered in one request.
        items: Items that a request may hold.
        size: Bytes that a request may have.
        named: Whether the server named the limit; else it is a guess, a half of what was refused.
        told: Whether the limit was said to the user.
    """

    taken: int = 0
    items: float = float("inf")
    size: float = float("inf")
    named: bool = False
    told: bool = False


class BatchLimits:
    """What the servers of a model take in one request, by endpoint.

    A request with more items than any that was answered is tried alone, and after a refusal nothing as large is sent
    again. So a limit that the server does not publish costs one or two refusals and not one for every request.
    """

    def __init__(self) -> None:
        self._endpoints: defaultdict[str, _Endpoint] = defaultdict(_Endpoint)

    @property
    def items(self) -> float:
        """How many items a request may hold; infinity where no limit was met."""
        return min((known.items for known in self._endpoints.values()), default=float("inf"))

    def has_answered(self, path: str) -> bool:
        """Whether this endpoint answered any request."""
        return self._endpoints[path].taken > 0

    def is_untried(self, request: Request) -> bool:
        """Whether no request of so many items was answered yet."""
        return 1 < request.items > self._endpoints[request.path].taken

    def divided(self, request: Request) -> Sequence[Request]:
        """Returns the parts of a request that is larger than the endpoint takes; itself where it is not."""
        known = self._endpoints[request.path]
        if request.split is None or (request.items <= known.items and len(request.body()) <= known.size):
            return [request]
        return request.split()

    def answered(self, request: Request, server: str) -> None:
        """Notes an answer."""
        known = self._endpoints[request.path]
        known.taken = max(known.taken, request.items)
        if not known.told and 2 * request.items > known.items:
            known.told = True
            logger.warning(
                "%s%s takes at most %d items in a request; batch_size: %d saves the refusals",
                server,
                request.path,
                known.items,
                known.items,
            )

    def refused(self, request: Request, error: ServerError) -> None:
        """Notes a refusal: the limit is what the server names, else a half of what it refused."""
        known = self._endpoints[request.path]
        if isinstance(error, InputTooLongError) or known.named:
            return
        named = batch_limit(error)
        if named is not None and named < request.items:
            known.items, known.named = named, True
        elif is_about_size(error):
            known.size = min(known.size, len(request.body()) // 2)
        else:
            known.items = min(known.items, (request.items + 1) // 2)

    def forget(self, path: str) -> None:
        """A single item was the reason of the refusals: what they seemed to say of the limit is forgotten."""
        known = self._endpoints[path]
        if not known.named:
            known.items = known.size = float("inf")
