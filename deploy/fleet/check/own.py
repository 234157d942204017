"""What tcptrace itself answers: the queries, asked by its own commands."""

import json
import subprocess
from collections import Counter, defaultdict
from datetime import datetime, timedelta

ORDERLY = {"local_fin", "peer_fin", "simultaneous_close", "listener_closed", "unknown"}


def lines(tcptrace, folder, command, *args):
    run = [tcptrace, command, *args, "--from", folder, "-o", "json", "-q"]
    output = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def counted(counter):
    return [(*key, count) for key, count in counter.items()]


def own_answers(tcptrace, recordings):
    states, resets, causes, worst, ends = Counter(), Counter(), Counter(), [], []
    for folder in sorted(recordings.glob("host=*")):
        host = folder.name.removeprefix("host=")
        for row in lines(tcptrace, folder, "hist", "--top", "100000"):
            if row["kind"] == "port":
                for state, count in row["sockets"].items():
                    if count:
                        states[host, row.get("port", ""), row["role"], state] += count
        for row in lines(tcptrace, folder, "rst", "--top", "100000"):
            if row["kind"] == "rst":
                why = row.get("reason", "-"), row.get("prev_state", "-")
                resets[host, row["direction"], *why] += row["count"]
        told = lines(tcptrace, folder, "conns")
        connections = [row | {"host": host} for row in told if row["kind"] == "connection"]
        for row in connections:
            causes[host, row.get("role", "-"), row["cause"]] += 1
        ends += connections
        failed = sum(row["cause"] not in ORDERLY for row in connections)
        worst.append((
            *(host, len(connections), failed, 100 * failed / len(connections)),
            sum(count for (of, *_), count in resets.items() if of == host),
            sum(row.get("retransmits", 0) for row in connections),
            told[-1]["lost"],
        ))
    return {
        "states": counted(states),
        "resets": counted(resets),
        "causes": counted(causes),
        "worst_hosts": worst,
        "both_ends": pairs(ends),
    }


def pairs(ends):
    """The connections of which both ends are told, as both_ends.sql has them."""
    servers = defaultdict(list)
    for end in ends:
        end["ended"] = micros(end["ts"])
        end["opened"] = micros(end.get("opened_ts", end["ts"]))
        if end.get("role") == "server":
            servers[end["raddr"], end["rport"], end["laddr"], end["lport"]].append(end)
    second = timedelta(seconds=1)
    found = []
    for client in (end for end in ends if end.get("role") == "client" and "lport" in end):
        for server in servers[client["laddr"], client["lport"], client["raddr"], client["rport"]]:
            if client["opened"] <= server["ended"] + second and server["opened"] <= client["ended"] + second:
                found.append((client["opened"].isoformat(), *side(client), *side(server)))
    return found


def side(end):
    names = "host id laddr lport cause duration_us tx_bytes retransmits"
    return [end.get(name, "") for name in names.split()]


def micros(text):
    """As a recording has it: without the last three digits of RFC 3339's nine."""
    return datetime.fromisoformat(text[:26] + "+00:00")
