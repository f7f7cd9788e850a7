"""Serves a small model that was trained here, asks it questions as a client would, and measures it: all of it without a network.

Usage: python scripts/demo_serve.py MODEL_DIR [--policy POLICY]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request

QUESTIONS = ("What does textwrap.dedent do?", "What is the module zipfile for?", "How does pathlib.Path.exists work?")
LOAD = "poisson:rate=8,prompt=60..200,output=20..60,n=60"


def main() -> int:
    """Returns the exit status of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--policy", default="sarathi")
    given = parser.parse_args()
    rota = [sys.executable, "-m", "rota"]
    command = [*rota, "serve", given.model, "--policy", given.policy, "--port", "0", "--kv-cache-memory", "0.25", "--threads", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        banner = server.stdout.readline()
        if " at http" not in banner:
            print("the server did not start; run it by itself to see why:", " ".join(command), file=sys.stderr)
            return 1
        address = banner.split(" at ")[1].split("/v1")[0]
        print(banner.strip(), flush=True)
        model = json.load(urllib.request.urlopen(f"{address}/v1/models"))["data"][0]["id"]
        for question in QUESTIONS:
            ask(address, model, question)
        print(f"\nA load of {LOAD}:", flush=True)
        return subprocess.run([*rota, "bench", LOAD, "--url", address]).returncode
    finally:
        server.terminate()
        server.communicate()


def ask(address: str, model: str, question: str) -> None:
    """Print a question, and the answer as it comes."""
    print(f"\n> {question}", flush=True)
    body = {
        "model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 80, "temperature": 0.5, "seed": 0, "stream": True,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                print(json.loads(line[6:])["choices"][0]["delta"].get("content", ""), end="", flush=True)
    print()


if __name__ == "__main__":
    sys.exit(main())
