"""The lab's web server: files, and /clientip, which tells the client the address it came from.

`GET /clientip` is answered as agnhost's netexec does (kubernetes test/images/agnhost/netexec):
the peer's address and port, `10.0.0.1:4711`, without a newline. Runs as a script in pod web.
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

FILES = "/usr/share/common-licenses"


class Web(SimpleHTTPRequestHandler):
    """Answers with a file, or with the client's own address."""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/clientip":
            super().do_GET()
            return
        body = "{}:{}".format(*self.client_address[:2]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    served = partial(Web, directory=FILES)
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), served).serve_forever()
