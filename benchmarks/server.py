"""What the HTTP front costs: streamed tokens per second, and the process's own time per token, with a model that costs nothing.

Usage: python benchmarks/server.py [--streams N] [--requests N]
The client runs in a process of its own; the engine (scheduling, blocks, text) is the real one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from queue import Queue

from rota.mechanisms.engine import Choice, Engine
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.sequences import Seq
from rota.mechanisms.server.front import Front
from rota.mechanisms.server.run import Running, serve
from rota.models.bpe import train_tokenizer
from rota.policies.registry import parse_policy

PROMPT, ANSWER, VOCAB = 64, 64, 400


class Free:
    """A model that always says the same token, at once."""

    n_layers, vocab, max_len, end_tokens = 1, VOCAB, 1024, frozenset({1})

    def allocate(self, blocks: int, block_size: int) -> None:
        """It has no cache."""

    def forget(self, seq: Seq) -> None:
        """It remembers nothing."""

    def run(self, rows: Sequence[Row], tables: object) -> list[Choice]:
        """A token for each row that wants one."""
        return [Choice(70) for row in rows if row.emits]


async def client(url: str, requests: int, streams: int) -> None:
    """Send all requests, so many at once, and print how fast tokens came."""
    import aiohttp

    tokens = 0
    body = {"model": "free", "max_tokens": ANSWER, "stream": True, "ignore_eos": True}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=streams)) as session:

        async def one(number: int) -> None:
            nonlocal tokens
            prompt = [6 + (number + i) % 256 for i in range(PROMPT)]
            async with session.post(f"{url}/v1/completions", json={**body, "prompt": prompt}) as answer:
                async for line in answer.content:
                    tokens += line.startswith(b"data: {")

        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(requests)))
    print(f"{tokens:,} tokens in {streams} streams: {tokens / (time.perf_counter() - begun):,.0f} tokens/s", end="", flush=True)


def main() -> None:
    """Run server and client, twice, so that the second finds everything warm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        asyncio.run(client(given.client, given.requests, given.streams))
        return
    tokenizer = train_tokenizer(["some text"], VOCAB)
    engine = Engine(Free(), parse_policy(f"vllm-v1:max_num_seqs={given.streams}"), blocks=1 << 14, tokenizer=tokenizer)
    front = Front(engine, tokenizer, None, "free")
    ready: Queue[Running] = Queue()
    thread = threading.Thread(target=serve, args=(front,), kwargs={"port": 0, "log": io.StringIO(), "ready": ready.put})
    thread.start()
    running = ready.get()
    for _ in range(2):
        before = time.process_time()
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--client", running.address], check=True)
        spent = time.process_time() - before
        print(f", {spent / given.requests / ANSWER * 1e6:.0f} us of the server's processor time each")
    running.stop()
    thread.join()


if __name__ == "__main__":
    main()
