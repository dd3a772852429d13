"""TLS: the exception for data that comes after our own close_notify.

The core drops such data and goes on until the peer has closed as well; where the `ssl` module meets
it the connection is of no more use. So the exception is made here, as that would have made it.
"""

import ssl

_REASON = "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"


def late_error() -> ssl.SSLError:
    """The exception that `SSLObject.unwrap()` raises, with the place in the module's source."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = ""
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True).unwrap()
    except ssl.SSLError as exc:  # there is no connection to be ended
        _, bracket, rest = str(exc).rpartition(" (")
        place = bracket + rest
    error = ssl.SSLError(
        int(ssl.SSL_ERROR_SSL), f"[SSL: {_REASON}] {_REASON.lower().replace('_', ' ')}{place}"
    )
    error.library = "SSL"
    error.reason = _REASON
    return error
