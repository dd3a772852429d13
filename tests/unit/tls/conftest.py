"""Certificates and contexts of one test, which it may change."""

import asyncio
import ssl

import pytest

from tests.certificates import make_certificate

from .tls_below import Connection


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key) of localhost."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_context(certificate):
    return ssl.create_default_context(cafile=certificate[0])


@pytest.fixture
def connection(contexts):
    def make(**options):
        return Connection(asyncio.get_running_loop(), contexts, **options)

    return make
