"""`hubtune serve` beside a plain Starlette app with a pipeline: requests a second, p99, memory, bad requests.

    python -m benchmarks.serving [--model FOLDER] [--requests 300] [--soak 10000]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "serving.json"
TEXTS = ("What a lovely day", "The kettle broke after two weeks. Never again.", "It is a chair: four legs, one seat, grey.",
         "Best soup in town; the waiter was kind and quick.")
PLAIN = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import pipeline
pipe = pipeline("text-classification", model=sys.argv[1])
async def predict(request):
    rows = await request.json()
    return JSONResponse(await run_in_threadpool(lambda: pipe([row["text"] for row in rows], top_k=None)))
uvicorn.run(Starlette(routes=[Route("/predict", predict, methods=["POST"])]), port=int(sys.argv[2]), log_level="error")
"""
BAD = (b"{", b"[" * 100_000, b'{"text": NaN}', json.dumps(["a"] * 10_000).encode(), b"a" * 20_000_000, b'{"text": 5}', b'{"path": "/etc/passwd"}',
       b'{"text": "\\ud800"}', b"\xff\xfe", json.dumps(["a" * 200_000]).encode(), b'{"text": {"path": "/etc/passwd"}}', b"null")
"""Bodies that are refused."""


def ask(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Send a request; return its status."""
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    reply.read()
    return reply.status


def load(port: int, clients: int, requests: int) -> dict[str, Any]:
    """Ask with some clients at a time; return requests a second and times in ms."""
    times: list[float] = []
    wrong: list[int] = []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for place in range(requests // clients):
            body = json.dumps([{"text": TEXTS[(number + place) % len(TEXTS)]}]).encode()
            start = time.perf_counter()
            status = ask(connection, body)
            times.append(time.perf_counter() - start)
            if status != 200:
                wrong.append(status)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(times)
    return {"clients": clients, "requests": len(times), "refused": len(wrong), "per_second": round(len(times) / (time.perf_counter() - start), 1),
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1), "p99_ms": round(1000 * ordered[int(len(ordered) * 0.99) - 1], 1)}


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return round(int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024, 1)


def started(command: list[str], port: int) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers."""
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            if ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), b'[{"text": "a day"}]') == 200:
                return process
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{command[:4]} ended with {process.returncode}")


def refused(port: int) -> dict[str, int]:
    """Send bodies that are wrong; return the statuses."""
    found = {}
    for body in BAD:
        try:
            status = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), body)
        except OSError:  # it closed the connection before all of the body had come
            status = 0
        found[body[:30].decode("utf-8", "replace") + f" ({len(body):,} bytes)"] = status
    return found


def main() -> None:
    """Measure both, one after the other in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, help="A run for text classification.")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--soak", type=int, default=10_000)
    given = parser.parse_args()
    ports = {"hubtune serve": 8321, "Starlette and pipeline": 8322}
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place) / "plain.py"
        plain.write_text(PLAIN)
        servers = {
            "hubtune serve": started([sys.executable, "-m", "hubtune", "serve", given.run, "--port", "8321"], 8321),
            "Starlette and pipeline": started([sys.executable, str(plain), str(Path(given.run) / "model"), "8322"], 8322)}
        try:
            document: dict[str, Any] = {"load": os.getloadavg()[0], "threads": os.environ.get("OMP_NUM_THREADS"), "servers": {name: [] for name in servers}}
            for clients in (1, 8, 64):
                for name, port in ports.items():
                    document["servers"][name].append(load(port, clients, given.requests))
                    print(name, document["servers"][name][-1], flush=True)
            document["bad"] = refused(8321)
            before = memory(servers["hubtune serve"])
            document["soak"] = {"before_mib": before, **load(8321, 64, given.soak), "after_mib": memory(servers["hubtune serve"])}
            print(document["bad"], document["soak"], flush=True)
        finally:
            for process in servers.values():
                process.terminate()
                process.wait()
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
