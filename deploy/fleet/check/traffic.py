"""What the hosts of check.py do: `serve` answers in five ways, `call SECONDS PEER...` connects to that, and to nothing.

Both say a word when they are ready, and keep what is open until their stdin ends.
"""

import itertools
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

ABORT = struct.pack("ii", 1, 0)
NOBODY = 9


def orderly(sock):
    sock.recv(100)
    sock.sendall(b"x" * 3000)
    sock.close()


def patient(sock):
    while sock.recv(100):
        sock.sendall(b"x" * 100)
    sock.close()


def leaky(sock, kept=[]):
    sock.recv(100)
    sock.sendall(b"x")
    kept.append(sock)


def aborting(sock):
    sock.recv(100)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


def unread(sock):
    sock.recv(1, socket.MSG_PEEK)
    sock.close()


SERVICES = {8080: orderly, 5432: patient, 8081: leaky, 9443: aborting, 8443: unread}


def accept(listener, answer):
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=(sock,), daemon=True).start()


def serve():
    for port, answer in SERVICES.items():
        listener = socket.create_server(("", port), backlog=512)
        threading.Thread(target=accept, args=(listener, answer), daemon=True).start()
    print("ready", flush=True)


def call(seconds, peers):
    kept = [socket.create_connection((peer, 5432)) for peer in peers for _ in range(3)]
    until = time.monotonic() + seconds
    ports = itertools.cycle([8080, 8080, 8080, 5432, 5432, 8081, 9443, 8443, NOBODY])
    for peer, port in zip(itertools.cycle(peers), ports):
        if time.monotonic() > until:
            break
        with suppress(ConnectionError), socket.create_connection((peer, port), timeout=5) as sock:
            sock.sendall(b"hello")
            if port == 5432:
                sock.recv(100)
                sock.shutdown(socket.SHUT_WR)
            # The leaky one never ends.
            while sock.recv(10000) and port != 8081:
                pass
    print("done", len(kept), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        call(float(sys.argv[2]), sys.argv[3:])
    sys.stdin.read()
