"""Does the hub answer? Its own client would try for half a minute, file by file, and tell of every try."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

SECONDS = 5.0


def hub_answers() -> bool:
    """Tells whether the hub can be asked from here.

    Nothing is tried in the hub's offline mode and behind a proxy: there its client decides.

    Returns:
        False where no connection to the hub's address opens within five seconds.
    """
    place = urlsplit(constants.ENDPOINT)
    host = place.hostname or ""
    behind_proxy = {place.scheme, "all"} & getproxies().keys() and not proxy_bypass(host)
    if constants.HF_HUB_OFFLINE or behind_proxy:
        return True
    try:
        socket.create_connection(
            (host, place.port or (80 if place.scheme == "http" else 443)), SECONDS
        ).close()
    except OSError:
        return False
    return True
