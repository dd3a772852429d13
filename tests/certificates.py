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


class Pki:
    """A small world of certificates in a folder, made on demand by the `openssl` command.

    `pem(name)` and `key(name)` are files. Certificates are signed by "ca", except where said.
    """

    def __init__(self, folder):
        self.folder = folder
        self._make()

    def pem(self, name):
        return str(self.folder / f"{name}.pem")

    def key(self, name):
        return str(self.folder / f"{name}.key")

    def chain(self, name):
        return self.pem(name), self.key(name)

    def _openssl(self, *args):
        done = subprocess.run(
            ["openssl", *args], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"openssl {args}\n{done.stderr}"

    def _request(self, name, subject):
        self._openssl(
            *("req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )

    def _authority(self, name):
        self._openssl(
            *("req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key"),
            *("-out", f"{name}.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _sign(self, name, extensions, issuer="ca", subject=None, days=("-days", "30")):
        self._request(name, subject or f"/CN={name}")
        (self.folder / f"{name}.ext").write_text("\n".join(extensions))
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey"),
            *(f"{issuer}.key", "-CAcreateserial", "-out", f"{name}.pem", *days),
            *("-extfile", f"{name}.ext"),
        )

    def _sign_with_dates(self, name, begin, end):
        """`x509 -req` knows no dates in older versions; `ca` does."""
        self._request(name, "/CN=localhost")
        self._openssl(
            *("ca", "-batch", "-config", "ca.cnf", "-in", f"{name}.csr", "-out", f"{name}.pem"),
            *("-startdate", begin, "-enddate", end, "-notext", "-extensions", "leaf"),
        )

    def _make(self):
        for name in ("ca", "otherca"):
            self._authority(name)
        ids = ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
        local = ["subjectAltName=DNS:localhost,IP:127.0.0.1", *ids]
        self._sign("localhost", [*local, "extendedKeyUsage=serverAuth"])
        self._sign("other", ["subjectAltName=DNS:other.example"])
        self._sign("wild", ["subjectAltName=DNS:*.example.org"])
        self._sign("untrusted", local, issuer="otherca")
        self._sign("clientonly", [*local, "extendedKeyUsage=clientAuth"])
        self._sign("client", [*ids, "extendedKeyUsage=clientAuth"], subject="/CN=a client/O=tests")
        self._sign("badclient", ["extendedKeyUsage=clientAuth"], issuer="otherca")
        self._sign("serveronly", ["extendedKeyUsage=serverAuth"])
        self._sign("revoked", local)
        self._sign("cnonly", ["extendedKeyUsage=serverAuth"], subject="/CN=localhost")
        # without the identifiers that VERIFY_X509_STRICT wants
        self._sign(
            "lax",
            ["subjectAltName=DNS:localhost", "authorityKeyIdentifier=none"],
        )
        self._sign("intermediate", ["basicConstraints=critical,CA:TRUE", *ids])
        self._sign("below", local, issuer="intermediate")
        (self.folder / "ca.cnf").write_text(CA_CONFIGURATION)
        (self.folder / "index.txt").write_text("")
        (self.folder / "index.txt.attr").write_text("unique_subject = no\n")
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("01\n")
        self._sign_with_dates("expired", "20200101000000Z", "20210101000000Z")
        self._sign_with_dates("future", "20900101000000Z", "20910101000000Z")
        self._openssl("ca", "-config", "ca.cnf", "-revoke", "revoked.pem")
        self._openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem")


CA_CONFIGURATION = """
[ca]
default_ca = d
[d]
database = index.txt
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
serial = serial
default_md = sha256
policy = p
crlnumber = crlnumber
default_crl_days = 30
[p]
commonName = supplied
[leaf]
subjectAltName = DNS:localhost
"""
