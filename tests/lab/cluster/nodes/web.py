"""The lab's web server: files, and /clientip, which tells the client the address it came from.

`GET /clientip` is answered as agnhost's netexec does (kubernetes test/images/agnhost/netexec):
the peer's address and port, `10.0.0.1:4711`, without a newline. So are datagrams with the words
`clientip`, `hostname` and `echo …`, in any case and with spaces around; others get no answer.
Runs as a script in pod web.
"""

from __future__ import annotations

import socket
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

FILES = "/usr/share/common-licenses"


class Web(SimpleHTTPRequestHandler):
    """Answers with a file, or with the client's own address."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/clientip":
            super().do_GET()
            return
        body = _name(self.client_address).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def datagrams(port: int) -> None:
    """Answer datagrams, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("0.0.0.0", port))
        while True:
            data, client = own.recvfrom(4096)
            word = data.decode("utf-8", "replace").strip().lower()
            if word == "clientip":
                own.sendto(_name(client).encode(), client)
            elif word == "hostname":
                own.sendto(socket.gethostname().encode(), client)
            elif word.startswith("echo "):
                own.sendto(word.removeprefix("echo ").encode(), client)


def _name(client: tuple[str, int]) -> str:
    return "{}:{}".format(*client[:2])


if __name__ == "__main__":
    http, udp = map(int, sys.argv[1:])
    threading.Thread(target=datagrams, args=(udp,), daemon=True).start()
    served = partial(Web, directory=FILES)
    ThreadingHTTPServer(("0.0.0.0", http), served).serve_forever()
