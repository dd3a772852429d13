"""Certificates for the tests that talk TLS, made by the `openssl` command."""

import ssl
import subprocess


def make_certificate(folder, name="localhost", key="ec"):
    """Make a self-signed certificate in `folder`; (certificate file, key file).

    `key` is what openssl calls it. The default is an elliptic curve, because a test makes
    thousands of handshakes with it.
    """
    curve = ("-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ()
    files = str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2"),
            *("-newkey", key, *curve),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", files[1], "-out", files[0]),
        ],
        check=True,
        capture_output=True,
    )
    return files


def make_contexts(folder, name="localhost", key="ec"):
    """(server's context, client's context that trusts only that server)."""
    files = make_certificate(folder, name, key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*files)
    return server, ssl.create_default_context(cafile=files[0])
