"""The world outside: HTTP on port 80 that tells the client its address, TCP echo on port 7777.

Runs as a script in the world's namespace, on every address it has.
"""

from __future__ import annotations

import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Tell(BaseHTTPRequestHandler):
    """Answers every GET with the address and port that it was asked from."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.client_address[0]}:{self.client_address[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Echo(socketserver.StreamRequestHandler):
    """Sends back what it gets."""

    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    echo = socketserver.ThreadingTCPServer(("0.0.0.0", 7777), Echo)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", 80), Tell).serve_forever()
