"""Serves Cloud Storage on loopback: an emulator for Beam, and a proxy that leads TensorFlow to it."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import os
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from gcp_storage_emulator.server import RequestHandler, Response, create_server

PROJECT = "my-project"
BUCKET = "bucket"


class Storage:
    """Holds the bucket `BUCKET` in memory, and the environment variables with which a process uses it as gs://.

    `downloaded` counts the bytes of each object that Beam's client was sent.
    """

    def __init__(self, emulator: Any, environment: dict[str, str], downloaded: Counter[str]) -> None:
        self._emulator = emulator
        self._files = emulator._storage
        self.environment = environment
        self.downloaded = downloaded

    def write(self, name: str, data: bytes) -> str:
        """Returns the object's gs:// path."""
        request = http.client.HTTPConnection(*self.address)
        request.request("POST", f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}", body=data)
        assert request.getresponse().status == 200
        request.close()
        return f"gs://{BUCKET}/{name}"

    def read(self, name: str) -> bytes:
        return bytes(self._files.get_file(BUCKET, name))

    def names(self, prefix: str = "") -> list[str]:
        """Returns all objects whose name begins so, in order."""
        return sorted(item["name"] for item in self._files.get_file_list(BUCKET, prefix)[0])

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Returns contents by the rest of the name."""
        return {name.removeprefix(prefix): self.read(name) for name in self.names(prefix)}

    @property
    def address(self) -> tuple[str, int]:
        return self._emulator._api._httpd.server_address


@contextmanager
def storage(directory: Path) -> Iterator[Storage]:
    """Serves while the context lasts; `directory` gets a key and certificates that are worth nothing elsewhere."""
    # Without this, the second part of an answer waits for the acknowledgement of the first: 40 ms a request.
    RequestHandler.disable_nagle_algorithm = True
    # Port 0: the system chooses a free one.
    with (
        _counted_downloads() as downloaded,
        create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET) as emulator,
    ):
        address = emulator._api._httpd.server_address
        with _serving(_TokenServer(("127.0.0.1", 0), _TokenHandler)) as tokens:
            credentials = directory / "credentials.json"
            credentials.write_text(json.dumps(_service_account(f"http://127.0.0.1:{tokens.server_address[1]}")))
            authority = _certificates(directory)
            with _serving(_TlsProxy(("127.0.0.1", 0), _TlsProxyHandler)) as proxy:
                proxy.context.load_cert_chain(directory / "server.pem")
                proxy.upstream = address
                environment = {
                    **os.environ,
                    # Beam's and Arrow's clients.
                    "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{address[1]}",
                    "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
                    "GOOGLE_CLOUD_PROJECT": PROJECT,
                    # Says that this is no machine of Google's, so that no client asks for its metadata.
                    "NO_GCE_CHECK": "true",
                    # TensorFlow's, which knows no emulator.
                    "https_proxy": f"http://127.0.0.1:{proxy.server_address[1]}",
                    "no_proxy": "localhost,127.0.0.1",
                    "CURL_CA_BUNDLE": str(authority),
                    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "t",
                }
                yield Storage(emulator, environment, downloaded)


@contextmanager
def _counted_downloads() -> Iterator[Counter[str]]:
    downloaded: Counter[str] = Counter()
    close = Response.close

    def count_and_close(response: Any) -> None:
        route, _, name = urlsplit(response._handler.path).path.partition("/o/")
        if route.startswith("/download/"):
            downloaded[unquote(name)] += len(response._content)
        close(response)

    with mock.patch.object(Response, "close", count_and_close):
        yield downloaded


@contextmanager
def _serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# Gives a token to every client that asks for one.


class _TokenServer(ThreadingHTTPServer):
    daemon_threads = True


class _TokenHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.dumps({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _service_account(token_uri: str) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": f"test@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{token_uri}/token",
    }


# TensorFlow speaks TLS to the real names. A proxy whose certificate it is told to trust passes that on as plain HTTP.


class _TlsProxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.upstream: tuple[str, int] = ("", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client closes the connection when it has read enough.
        pass


class _TlsProxyHandler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: _TlsProxy

    def handle(self) -> None:
        for line in iter(self.rfile.readline, b"\r\n"):
            assert line
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with self.server.context.wrap_socket(self.connection, server_side=True) as connection:
            _Forward(connection, self.client_address, self.server)  # type: ignore[arg-type]


# The emulator puts the host into the links that it gives, and other clients follow them without the proxy.
_OF_THE_CONNECTION = ("host", "connection", "expect", "transfer-encoding", "content-length")
_EMPTY = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\n\r\n\r\n--x--\r\n"


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _TlsProxy  # type: ignore[assignment]

    def _forward(self) -> None:
        body = self._body()
        if self.path.endswith("/storageLayout"):
            # Asked before a rename: a bucket without true directories.
            self._answer(200, [("Content-Type", "application/json")], b"{}")
            return
        upstream = http.client.HTTPConnection(*self.server.upstream)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        path = self.path
        if "uploadType=media" in path and not body:
            # An empty object, such as the mark of a directory; the emulator takes it only as a multipart upload.
            path, body = path.replace("uploadType=media", "uploadType=multipart"), _EMPTY
            kept["Content-Type"] = "multipart/related; boundary=x"
        upstream.request(self.command, path, body=body, headers=kept)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        self._answer(answer.status, answer.getheaders(), data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in (*_OF_THE_CONNECTION, "server", "date"):
                upstream = "http://{}:{}".format(*self.server.upstream)
                self.send_header(name, value.replace(upstream, f"https://{self.headers['Host']}"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _forward

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _certificates(directory: Path) -> Path:
    """Writes `server.pem` (key and certificate) and returns the path of the authority that signed it."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, "authority", authority_key, is_authority=True)
    key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate("storage.googleapis.com", key, "authority", authority_key, is_authority=False)
    (directory / "server.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + server.public_bytes(serialization.Encoding.PEM)
    )
    path = directory / "authority.pem"
    path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return path


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("*.googleapis.com"),
                    x509.DNSName("www.googleapis.com"),
                    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
                ]
            ),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
