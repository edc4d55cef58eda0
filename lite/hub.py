"""Downloads from the hub that a user asked for: whether it answers is found out once, in seconds."""

from __future__ import annotations

import logging
import os
import threading
from functools import cache

logger = logging.getLogger(__name__)

SECONDS = 5  # that the hub may take to answer


def give_up_early(name: str) -> None:
    """Before `name` is loaded: where it is a hub id and the hub does not answer, go offline for this process.

    What is in the cache is then used at once and all else fails at once. By themselves, the libraries ask for each file
    again and again: minutes, with or without a copy in the cache.

    Args:
        name: A hub id, or a local folder, for which nothing is asked.
    """
    if os.path.exists(name):
        return
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
        logger.warning("%s does not answer: only models on this machine are used.", constants.ENDPOINT)


@cache
def _answers(endpoint: str) -> bool:
    found = []

    def ask() -> None:
        from huggingface_hub import get_session

        try:
            found.append(get_session().head(endpoint, timeout=SECONDS, follow_redirects=False))
        except Exception as error:  # whatever proxies, name servers and certificates can do wrong
            logger.info("%s: %s", endpoint, error)

    # In a thread: looking a name up heeds no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return bool(found)
