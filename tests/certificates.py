"""Certificates for the tests that talk TLS, made by the `openssl` command."""

import ssl
import subprocess


def make_certificate(folder, name="localhost"):
    """Make a self-signed certificate in `folder`; (certificate file, key file).

    An elliptic curve key, because a test makes thousands of handshakes with it.
    """
    files = str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", files[1], "-out", files[0]),
        ],
        check=True,
        capture_output=True,
    )
    return files


def make_contexts(folder, name="localhost"):
    """(server's context, client's context that trusts only that server)."""
    files = make_certificate(folder, name)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*files)
    return server, ssl.create_default_context(cafile=files[0])
