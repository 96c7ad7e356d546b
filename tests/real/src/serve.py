"""Serves the working folder by https."""

import http.server
import ssl


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("localhost", 7005), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("c", "k")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
