"""A private authority and what it signs, made by the command `openssl`; and TLS in front of a server without."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, NamedTuple

DAYS = "2"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Certificate(NamedTuple):
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates that nobody trusts who was not given its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.certificate, self._key = directory / "authority.pem", directory / "authority.key"
        self._openssl(
            "req", "-x509", *KEY, "-nodes", "-days", DAYS, "-subj", f"/CN={directory.name}",
            "-keyout", str(self._key), "-out", str(self.certificate),
        )  # fmt: skip

    def signed(self, name: str, hosts: str = "", password: str = "") -> Certificate:
        """A certificate of a server, or of a client; `hosts` such as "DNS:localhost,IP:127.0.0.1"."""
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.request", self._directory / f"{name}.extensions"
        extensions.write_text(f"subjectAltName={hosts}\n" if hosts else "")
        sealed = ("-passout", f"pass:{password}") if password else ("-nodes",)
        self._openssl(
            "req",
            "-new",
            *KEY,
            *sealed,
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(made.key),
            "-out",
            str(request),
        )
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
            "-CAcreateserial", "-days", DAYS, "-extfile", str(extensions), "-out", str(made.certificate),
        )  # fmt: skip
        return made

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class TlsFront(ThreadingTCPServer):
    """Speaks TLS, and hands what it hears to a server that does not."""

    daemon_threads, block_on_close, behind = True, False, 0

    def __init__(self, own: Certificate, clients: Path | None = None) -> None:
        """With `clients`, whoever comes needs a certificate of that authority."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*own)
        if clients is not None:
            self.context.load_verify_locations(clients)
            self.context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.port = self.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        Thread(target=partial(self.serve_forever, poll_interval=0.01), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer one connection."""
        with (
            suppress(OSError),
            self.context.wrap_socket(request, server_side=True) as outside,
            socket.create_connection(("127.0.0.1", self.behind)) as inside,
        ):
            Thread(target=self._pass_on, args=(inside, outside), daemon=True).start()
            self._pass_on(outside, inside)

    def _pass_on(self, heard: socket.socket, told: socket.socket) -> None:
        with suppress(OSError):
            while some := heard.recv(65_536):
                told.sendall(some)
            told.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
