"""KV blocks for the oracle: every block has an identity, a holder count and a place in the queue of free blocks.

A block keeps its content after it is freed and loses it only when it is taken for something new, least recently freed first.
Blocks promised in a plan leave the queue when the plan is complete (`fulfil`), so that a plan's prefix hits are safe from its
own new blocks, in whatever order the policy decided them.
"""

from collections import OrderedDict


class Blocks:
    def __init__(self, total, size, caching, copies=0):
        self.total, self.size, self.caching = total, size, caching
        self.queue = OrderedDict.fromkeys(range(total))
        self.holders = [0] * total
        self.content = [None] * total
        self.where = {}  # content -> ordered set of the blocks that have it
        self.promised = {}  # request -> blocks to take when the plan is complete
        self.copies, self.host = copies, OrderedDict()  # contents in host memory, the least recently used one first
        self.loading = 0  # blocks that copies from there will be put into when the plan is complete
        self.loaded = 0

    @property
    def free(self):
        return len(self.queue) - sum(self.promised.values()) - self.loading

    def count(self, tokens):
        return -(-tokens // self.size)

    def held(self, req):
        return len(req.blocks) + self.promised.get(req, 0)

    def missing(self, req, tokens):
        """New blocks that holding `tokens` tokens takes."""
        return max(0, self.count(tokens) - self.held(req))

    def promise(self, req, tokens):
        missing = self.missing(req, tokens)
        assert missing <= self.free, "blocks promised twice"
        if missing:
            self.promised[req] = self.promised.get(req, 0) + missing

    def fulfil(self):
        """Take what is promised. How many blocks of it are copies from host memory."""
        for req, n in self.promised.items():
            for j, block in enumerate(req.blocks):
                if block is None:
                    req.blocks[j] = self._take()
                    self._enter(req.blocks[j], req.key(j, self.size))
            for _ in range(n):
                req.blocks.append(self._take())
        loaded, self.loading, self.promised = self.loading, 0, {}
        self.loaded += loaded
        return loaded

    def _take(self):
        block, _ = self.queue.popitem(last=False)
        self._forget(block)
        self.holders[block] = 1
        return block

    def release(self, req):
        """Give everything back, the end of the sequence first, so that it is also reused first."""
        self.promised.pop(req, None)
        for block in reversed(req.blocks):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                self.queue[block] = None
        req.blocks = []

    def hits(self, req):
        """Blocks that hold the leading full blocks of a waiting request, at most ``known - 1`` tokens; None for one in host memory."""
        found = []
        if self.caching:
            for j in range((req.known - 1) // self.size):
                blocks = self.where.get(req.key(j, self.size))
                if not blocks and req.key(j, self.size) not in self.host:
                    break
                found.append(next(iter(blocks)) if blocks else None)
        return found

    def takes(self, hits):
        """Free blocks that holding these takes."""
        return sum(block is None or self.holders[block] == 0 for block in hits)

    def hold(self, req, hits):
        for j, block in enumerate(hits):
            if block is None:
                self.host.move_to_end(req.key(j, self.size))
                self.loading += 1
                req.blocks.append(None)
                continue
            if self.holders[block] == 0:
                del self.queue[block]
            self.holders[block] += 1
            req.blocks.append(block)

    def commit(self, req):
        """Full blocks of computed tokens become findable."""
        if not self.caching:
            return
        for j in range(req.committed, req.computed // self.size):
            block = req.blocks[j]
            if self.content[block] is None:
                self._enter(block, req.key(j, self.size))
        req.committed = req.computed // self.size

    def _enter(self, block, key):
        self.content[block] = key
        self.where.setdefault(key, OrderedDict())[block] = None

    def _forget(self, block):
        key = self.content[block]
        if key is not None:
            del self.where[key][block]
            self.content[block] = None
            if self.copies:
                self.host[key] = None
                self.host.move_to_end(key)
                if len(self.host) > self.copies:
                    self.host.popitem(last=False)
