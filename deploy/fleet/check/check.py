#!/usr/bin/env python3
"""Three hosts record the traffic between them, and the queries of deploy/fleet are asked of DuckDB, ClickHouse and a
Spark cluster: all answers must be equal, and equal to what tcptrace itself says of the recordings.

    sudo VENV/bin/python deploy/fleet/check/check.py target/release/tcptrace [--seconds 20] [--keep DIR]

The hosts are network namespaces. Needs root, ip (iproute2), Java 17 or later, and duckdb, chdb and pyspark from PyPI.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from engines import ENGINES
from own import own_answers

HERE = Path(__file__).parent
QUERIES = sorted(HERE.parent.glob("*.sql"))
HOSTS = ["alpha", "beta", "gamma"]
PREFIX = "tcptrace-fleet-"


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def make_network(stack):
    """A namespace for each host, and one that is the switch between them."""
    switch = f"{PREFIX}switch"
    for name in [switch, *(PREFIX + host for host in HOSTS)]:
        ip("netns", "add", name)
        stack.callback(ip, "netns", "delete", name)
    ip("-n", switch, "link", "add", "bridge", "type", "bridge")
    ip("-n", switch, "link", "set", "bridge", "up")
    for number, host in enumerate(HOSTS):
        ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", PREFIX + host)
        ip("-n", switch, "link", "set", host, "master", "bridge", "up")
        ip("-n", PREFIX + host, "address", "add", f"{address(number)}/24", "dev", "eth0")
        ip("-n", PREFIX + host, "link", "set", "lo", "up")
        ip("-n", PREFIX + host, "link", "set", "eth0", "up")


def address(number):
    return f"198.51.100.{number + 1}"


def start(stack, command, **pipes):
    child = subprocess.Popen(command, text=True, **pipes)
    stack.callback(child.wait)
    stack.callback(child.terminate)
    return child


def traffic(stack, host, *args):
    command = ["ip", "netns", "exec", PREFIX + host, sys.executable, HERE / "traffic.py", *args]
    return start(stack, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def record(tcptrace, recordings, seconds):
    with ExitStack() as stack:
        make_network(stack)
        for host in HOSTS:
            assert traffic(stack, host, "serve").stdout.readline() == "ready\n"
        recorders = []
        for host in HOSTS:
            command = [tcptrace, "record", "-v", "-O", recordings, "--host", host, "-N", PREFIX + host, "--rotate", "5s"]
            recorders.append(start(stack, command, stderr=subprocess.PIPE))
        for recorder in recorders:
            while "recording to" not in (line := recorder.stderr.readline()):
                assert line, "a recorder has ended"
        callers = []
        for host in HOSTS:
            peers = [address(number) for number, peer in enumerate(HOSTS) if peer != host]
            callers.append(traffic(stack, host, "call", str(seconds), *peers))
        for caller in callers:
            assert caller.stdout.readline().startswith("done")
        # What ended last is told after a moment.
        time.sleep(1)
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)
        for recorder in recorders:
            _, told = recorder.communicate()
            assert recorder.returncode == 0, told
            print(told.strip().splitlines()[-1])


def normal(cell):
    """Numbers and times as one way of writing them."""
    try:
        return str(round(Decimal(cell), 9).normalize() + 0)
    except InvalidOperation:
        pass
    try:
        when = datetime.fromisoformat(cell)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        # ClickHouse writes NULL so.
        return "" if cell == "\\N" else cell


def canonical(rows):
    return Counter(tuple(normal(str(cell)) for cell in row) for row in rows)


def compare(tcptrace, recordings, scratch):
    answers = {"tcptrace": {name: canonical(rows) for name, rows in own_answers(tcptrace, recordings).items()}}
    seconds = {}
    for engine, ask in ENGINES.items():
        (scratch / engine).mkdir()
        began = time.monotonic()
        asked = ask(recordings, QUERIES, scratch / engine)
        answers[engine] = {name: canonical(rows) for name, rows in asked}
        seconds[engine] = time.monotonic() - began
    good = True
    for query in QUERIES:
        expected = answers["tcptrace"][query.stem]
        told = [f"{query.stem:12} {expected.total():6} rows"]
        for engine in ENGINES:
            answer = answers[engine][query.stem]
            equal = answer == expected and expected.total() > 0
            told.append(f"{engine}: {'equal' if equal else 'DIFFERENT'}")
            if not equal:
                good = False
                for row in list((answer - expected) + (expected - answer))[:10]:
                    told.append(f"\n    {'more' if row in answer else 'missing'}: {row}")
        print("  ".join(told))
    print("seconds:", "  ".join(f"{engine} {time:.1f}" for engine, time in seconds.items()))
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("tcptrace", type=Path)
    parser.add_argument("--seconds", type=float, default=20, help="of traffic")
    parser.add_argument("--keep", type=Path, help="keep the recordings there")
    parser.add_argument("--from", dest="recordings", type=Path, help="only ask, of recordings that are there")
    args = parser.parse_args()
    # So that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as scratch:
        scratch = Path(scratch)
        recordings = (args.recordings or args.keep or scratch / "recordings").resolve()
        if not args.recordings:
            record(args.tcptrace.resolve(), recordings, args.seconds)
        files = list(recordings.glob("host=*/date=*/hour=*/*.parquet"))
        print(f"{len(files)} files, {sum(file.stat().st_size for file in files)} bytes")
        good = compare(args.tcptrace.resolve(), recordings, scratch)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
