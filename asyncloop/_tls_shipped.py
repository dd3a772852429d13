"""Is TLS in this process what the interpreter ships?

The core's TLS transport does what `asyncio.sslproto.SSLProtocol` would do with an `ssl.SSLContext`
and an `ssl.SSLObject`. That is true only for these classes as they are in the standard library: a
method that a program has replaced, in the class, in a subclass or in one object, has to be called,
with what asyncio would give it. So each new connection asks `is_shipped()`, and asyncio's own
transport serves where the answer is no.

A class is the standard library's if its functions are: what counts is the code that runs, which
functools.wraps() does not change. The look at all of them takes a tenth of a millisecond; the core
remembers what was seen, with the classes' version tags, and compares that for each connection.
"""

import sys
from collections.abc import Set as AbstractSet
from types import FunctionType, ModuleType
from typing import Any

from . import _core

# What the core takes for granted of each class: that it has these, and no data but that.
_OBJECT = {
    *("_create", "context", "read", "write", "do_handshake", "unwrap", "pending"),
    *("getpeercert", "cipher", "compression", "__init__"),
}
_CONTEXT = {"__new__", "wrap_bio", "_encode_hostname"}
# Settings, and what is for sockets: nobody calls it for a connection.
_CONTEXT_OTHERS = {
    *("wrap_socket", "set_npn_protocols", "set_alpn_protocols", "set_servername_callback"),
    *("load_default_certs", "_load_windows_store_certs"),
}
_CONTEXT_DATA = {"sslsocket_class": None, "sslobject_class": None, "_windows_cert_stores": None}
_PROTOCOL = {
    *("__init__", "connection_made", "connection_lost", "get_buffer", "buffer_updated"),
    *("eof_received", "pause_writing", "resume_writing", "_do_handshake", "_do_read"),
    *("_do_write", "_do_shutdown", "_fatal_error", "_on_handshake_complete"),
}
_PROTOCOL_DATA = {
    "max_size": 256 * 1024,
    "_handshake_start_time": None,
    "_handshake_timeout_handle": None,
    "_shutdown_timeout_handle": None,
}
_TRANSPORT = {"write", "writelines", "close", "abort", "get_extra_info", "set_protocol"}
_TRANSPORT_DATA = {"_start_tls_compatible": True, "_sendfile_compatible": None}
_PLAIN_DUNDERS = (str, int, tuple, dict, type(None))


def is_shipped(context: Any) -> bool:
    """Would asyncio do with this context exactly what the core does?"""
    answer = _core._tls_check(context)
    if answer is None:
        seen = _look(context)
        if seen is None:
            return False
        _core._tls_stamp(*seen)
        answer = _core._tls_check(context)
    return answer is True


def _look(context: Any) -> tuple[Any, Any, Any] | None:
    """What the core has to compare, or None if something is not the standard library's.

    The classes; their functions, each followed by its code; and names of modules, as a sequence of
    the module's dictionary, the name, and the object that it stands for.
    """
    try:
        sslproto = sys.modules["asyncio.sslproto"]
        ssl = sys.modules["ssl"]
        c_ssl = sys.modules["_ssl"]
        constants = sys.modules["asyncio.constants"]
        log = sys.modules["asyncio.log"]
        protocol_file = sslproto._create_transport_context.__code__.co_filename
        ssl_file = ssl._sslcopydoc.__code__.co_filename
        protocol_class, transport_class = sslproto.SSLProtocol, sslproto._SSLProtocolTransport
    except (AttributeError, KeyError):
        return None
    limits = constants.FLOW_CONTROL_HIGH_WATER_SSL_READ, constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE
    again = ssl.SSLWantReadError, ssl.SSLSyscallError
    names = (
        *_name(sslproto, "ssl", ssl),
        *_name(sslproto, "constants", constants),
        *_name(sslproto, "logger", log.logger),
        *_name(sslproto, "SSLProtocol", protocol_class),
        *_name(sslproto, "_SSLProtocolTransport", transport_class),
        *_name(sslproto, "SSLAgainErrors", sslproto.SSLAgainErrors),
        *_name(sslproto, "add_flowcontrol_defaults", sslproto.add_flowcontrol_defaults),
        *_name(constants, "FLOW_CONTROL_HIGH_WATER_SSL_READ", limits[0]),
        *_name(constants, "FLOW_CONTROL_HIGH_WATER_SSL_WRITE", limits[1]),
        *_name(ssl, "MemoryBIO", c_ssl.MemoryBIO),
        *_name(ssl, "SSLError", c_ssl.SSLError),
        *_name(ssl, "CertificateError", c_ssl.SSLCertVerificationError),
    )
    if hasattr(ssl, "_check_sslobject_params"):
        names += _name(ssl, "_check_sslobject_params", ssl._check_sslobject_params)
    if limits != (256, 512) or sslproto.SSLAgainErrors != again or not _holds(names):
        return None
    functions: list[FunctionType] = []
    if (
        not _functions(
            sslproto.add_flowcontrol_defaults, "add_flowcontrol_defaults", protocol_file, functions
        )
        or not _functions_of_module(ssl, "_check_sslobject_params", ssl_file, functions)
        or not _class(
            protocol_class, "SSLProtocol", _PROTOCOL, _PROTOCOL_DATA, protocol_file, functions
        )
        or not _class(
            transport_class,
            "_SSLProtocolTransport",
            _TRANSPORT,
            _TRANSPORT_DATA,
            protocol_file,
            functions,
        )
    ):
        return None
    # `context` may be of a subclass, or imitate the class: then the class itself is looked at, so
    # that the answer for this context is remembered, too.
    for candidate in (*type.mro(type(context)), getattr(ssl, "SSLContext", None)):
        found = list(functions)
        if (
            isinstance(candidate, type)
            and candidate.__bases__ == (c_ssl._SSLContext,)
            and _class(
                candidate, "SSLContext", _CONTEXT, _CONTEXT_DATA, ssl_file, found, _CONTEXT_OTHERS
            )
        ):
            object_class = vars(candidate).get("sslobject_class")
            if (
                isinstance(object_class, type)
                and object_class.__bases__ == (object,)
                and _class(object_class, "SSLObject", _OBJECT, {}, ssl_file, found)
            ):
                classes = (candidate, object_class, protocol_class, transport_class)
                pairs = tuple(part for f in found for part in (f, f.__code__))
                return classes, pairs, names
    return None


def _name(module: ModuleType, name: str, value: object) -> tuple[Any, ...]:
    return vars(module), name, value


def _holds(names: tuple[Any, ...]) -> bool:
    parts = iter(names)
    return all(d.get(name) is value for d, name, value in zip(parts, parts, parts, strict=True))


def _functions(value: Any, name: str, file: str, found: list[FunctionType]) -> bool:
    """Adds the functions behind an attribute. False: one is not what the file defines there."""
    if isinstance(value, property):
        functions = [f for f in (value.fget, value.fset, value.fdel) if f is not None]
    elif isinstance(value, (classmethod, staticmethod)):
        functions = [value.__func__]
    else:
        functions = [value]
    for function in functions:
        if (
            type(function) is not FunctionType
            or function.__code__.co_filename != file
            or function.__code__.co_qualname != name
        ):
            return False
        found.append(function)
    return bool(functions)


def _functions_of_module(
    module: ModuleType, name: str, file: str, found: list[FunctionType]
) -> bool:
    """The same for a name of the module, which not every version has."""
    return not hasattr(module, name) or _functions(getattr(module, name), name, file, found)


def _class(
    cls: Any,
    name: str,
    wanted: set[str],
    data: dict[str, Any],
    file: str,
    found: list[FunctionType],
    others: AbstractSet[str] = frozenset(),
) -> bool:
    """Is everything in this class, but the others, from the file? Adds its functions to `found`."""
    if type(cls) is not type or cls.__qualname__ != name:
        return False
    attributes = dict(vars(cls))  # another thread may change them
    for key, value in attributes.items():
        if key in others:
            continue
        if key in data:
            if data[key] is not None and data[key] != value:
                return False
        elif key in ("__dict__", "__weakref__"):
            continue
        elif key.startswith("__") and isinstance(value, _PLAIN_DUNDERS):
            continue  # the module's name, the documentation, the first line
        elif not _functions(value, f"{name}.{key}", file, found):
            return False
    return wanted <= attributes.keys()
