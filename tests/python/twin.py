"""A slow, obvious simulator of the same rules, pass by pass: the twin of the native one.

Integer picoseconds, plain lists, one pass an event, every queue searched from its head. It knows
nothing of runs of equal steps, of bookings made ahead, or of tickets. The rules are those of the
module headers of ``src/sim``: at equal times arrivals first, then instances by number; an instance
ends its pass, preempts the latest until its KV fits, deals prompt tokens, and starts the next one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial


@dataclass
class Request:
    """One request and where it stands."""

    number: int
    arrival: int
    isl: int
    osl: int
    prefix: int = 0
    written: int = 0  # answer tokens
    need: int = 0  # tokens whose KV must be computed before it decodes
    done: int = 0
    context: int = 0  # tokens in KV while it decodes, the one being written included
    preempted: int = 0
    started: int = 0  # let in for its prompt
    last: int = 0  # prompt done
    first: int | None = None
    finish: int | None = None
    status: str = "unfinished"


@dataclass
class Rank:
    """One attention rank: a queue, and the sequences that were let in."""

    waiting: list[Request] = field(default_factory=list)
    prefilling: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    joining: list[Request] = field(default_factory=list)  # their KV came from prefill
    leaving: list[Request] = field(default_factory=list)  # prompts done, KV waits for room at decode or is on its way
    inbound: list[Request] = field(default_factory=list)  # KV on its way to here
    link: int = 0  # its links are taken until then
    load: int = 0
    stuck: bool = False  # the head did not fit, and nothing has ended since


@dataclass
class Instance:
    """Ranks in lockstep, and the pass under way: (end, decodes, [(rank, request, tokens)])."""

    role: str
    ranks: list[Rank]
    budget: int
    seats: int
    now: tuple[int, bool, list[tuple[Rank, Request, int]]] | None = None
    due: int | None = None


class Twin:
    """``price(decode sequences, their contexts, prompt pieces [(new, past)]) -> picoseconds``."""

    def __init__(
        self,
        instances: Sequence[Instance],
        scheduler: str,
        kv_blocks: int,
        price: Callable[..., int],
        block: int = 16,
        kv: Callable[[int], int] = lambda _tokens: 0,
    ) -> None:
        self.kv = kv  # picoseconds of a prompt's new tokens on idle links
        self.instances, self.scheduler, self.capacity, self.block = list(instances), scheduler, kv_blocks, block
        self.price = price
        self.first_pool = [i for i in self.instances if i.role != "decode"]
        self.decode_pool = [i for i in self.instances if i.role == "decode"]
        self.passes: list[tuple[int, int, int, int]] = []  # (start, instance, end, sequences in it)
        self.waits = scheduler != "chunked-prefill"  # decode waits while prompts are computed

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def held(self, rank: Rank) -> int:
        """Blocks that the sequences of a rank hold, counted afresh."""
        prompts = sum(self.blocks(r.need) for r in rank.prefilling)
        written = sum(self.blocks(r.isl + r.written) for r in rank.joining + rank.inbound)
        return prompts + written + sum(self.blocks(r.isl) for r in rank.leaving) + sum(
            self.blocks(r.context) for r in rank.running
        )  # fmt: skip

    @staticmethod
    def seated(rank: Rank) -> list[Request]:
        return rank.prefilling + rank.running + rank.joining + rank.leaving + rank.inbound

    # --- arrivals ---------------------------------------------------------------------------------

    def run(self, requests: Sequence[Request], users: int | None = None, think: int = 0) -> None:
        """Serve all; with ``users`` in a closed loop the first so many come by themselves."""
        self.waiting_users, self.think = list(requests[users:]) if users else [], think
        self.calls: list[tuple[int, int, Callable[[], None]]] = []
        self.ties = 0
        for r in requests[:users] if users else requests:
            self.call(r.arrival, partial(self.arrive, r))
        while True:
            times = [i.due for i in self.instances if i.due is not None] + [c[0] for c in self.calls[:1]]
            if not times:
                return
            self.time = min(times)
            if self.calls and self.calls[0][0] == self.time:
                heapq.heappop(self.calls)[2]()
            else:
                self.boundary(next(i for i in self.instances if i.due == self.time))

    def call(self, at: int, what: Callable[[], None]) -> None:
        self.ties += 1
        heapq.heappush(self.calls, (at, self.ties, what))

    def arrive(self, r: Request) -> None:
        r.arrival, r.need = self.time, r.isl
        if self.blocks(r.isl + r.osl) > self.capacity:
            r.status = "rejected"
            self.left()
            return
        instance, rank = self.least_loaded(self.first_pool)
        rank.load += 1
        self.queue(rank, r)
        self.wake(instance)

    @staticmethod
    def least_loaded(pool: list[Instance]) -> tuple[Instance, Rank]:
        return min(((i, k) for i in pool for k in i.ranks), key=lambda pair: pair[1].load)

    @staticmethod
    def queue(rank: Rank, r: Request) -> None:
        rank.waiting = sorted([*rank.waiting, r], key=lambda q: q.number)
        if rank.waiting[0] is r:
            rank.stuck = False

    def wake(self, instance: Instance) -> None:
        if instance.now is None:
            instance.due = self.time

    def left(self) -> None:
        """A request is gone: its user thinks and sends the next one."""
        if self.waiting_users:
            self.call(self.time + self.think, partial(self.arrive, self.waiting_users.pop(0)))

    # --- the boundary between two passes ------------------------------------------------------------

    def boundary(self, i: Instance) -> None:
        if i.now is not None:
            self.settle(i)
            if self.calls and self.calls[0][0] == self.time:
                i.due = self.time  # what arrives at this very time comes first
                return
        for rank in i.ranks:
            while self.held(rank) > self.capacity:
                self.preempt(rank)
            if i.role == "decode":
                self.join(rank)
                self.let_in(i, rank)
        if self.calls and self.calls[0][0] == self.time:
            i.due = self.time  # KV that crosses in no time joins this pass
            return
        pieces = self.deal(i)
        decoding = [r for rank in i.ranks for r in rank.running]
        decodes = bool(decoding) and not (pieces and self.waits)
        i.now = i.due = None
        if not pieces and not decoding:
            return
        end = self.time + self.price(decoding if decodes else [], [(n, r.done) for _, r, n in pieces])
        i.now, i.due = (end, decodes, pieces), end
        sequences = (len(decoding) if decodes else 0) + len(pieces)
        self.passes.append((self.time, self.instances.index(i), end, sequences))

    def settle(self, i: Instance) -> None:
        """End the pass: tokens written, answers complete, prompts done."""
        assert i.now is not None
        _, decodes, pieces = i.now
        i.now = i.due = None
        ended: list[tuple[Request, Rank]] = []
        for rank in i.ranks if decodes else []:
            for r in rank.running:
                r.written, r.context = r.written + 1, r.context + 1
                r.first = self.time if r.first is None else r.first
                ended += [(r, rank)] if r.written >= r.osl else []
        for r, rank in sorted(ended, key=lambda e: e[0].number):
            rank.running.remove(r)
            self.gone(r, rank)
        for rank, r, tokens in pieces:
            r.done += tokens
            if r.done >= r.need:
                rank.prefilling.remove(r)
                self.prompt_done(i, rank, r)

    def gone(self, r: Request, rank: Rank) -> None:
        r.finish, r.status, rank.stuck = self.time, "finished", False
        rank.load -= 1
        self.left()

    def prompt_done(self, i: Instance, rank: Rank, r: Request) -> None:
        ships = i.role == "prefill" and r.osl > 1
        if r.first is None and not ships:
            r.first = self.time
        r.written += 1
        if r.written >= r.osl:
            self.gone(r, rank)
        elif i.role == "prefill":
            r.last = self.time
            rank.leaving.append(r)
            rank.load -= 1
            to, there = self.least_loaded(self.decode_pool)
            there.load += 1
            self.queue(there, r)
            self.let_in(to, there)
        else:
            r.context = r.isl + r.written
            rank.running.append(r)

    # --- prefill to decode -------------------------------------------------------------------------

    def let_in(self, i: Instance, rank: Rank) -> None:
        """KV leaves as soon as it has a place and its links are free; its first token leaves when it is there."""
        while rank.waiting and not rank.waiting[0].preempted and len(self.seated(rank)) < i.seats:
            r = rank.waiting[0]
            if self.blocks(r.isl + r.written) > self.capacity - self.held(rank):
                return
            rank.inbound.append(rank.waiting.pop(0))
            origin, source = next((o, k) for o in self.first_pool for k in o.ranks if r in k.leaving)
            # With a place at once, KV went out layer by layer while the prompt was computed.
            begin = max(source.link, rank.link, r.started if r.last == self.time else self.time)
            takes = self.kv(r.isl - r.prefix)
            source.link = rank.link = begin + takes
            self.call(max(begin, self.time) + takes, partial(self.kv_there, r, origin, source, i, rank))

    def kv_there(self, r: Request, origin: Instance, source: Rank, i: Instance, rank: Rank) -> None:
        source.leaving.remove(r)
        source.stuck = False
        self.wake(origin)
        r.first = self.time if r.first is None else r.first
        rank.inbound.remove(r)
        rank.joining.append(r)
        self.wake(i)

    def join(self, rank: Rank) -> None:
        for r in rank.joining:
            r.context = r.isl + r.written
        rank.running += rank.joining
        rank.joining = []

    # --- KV and prompt tokens -----------------------------------------------------------------------

    def preempt(self, rank: Rank) -> None:
        """The latest request loses its KV and computes it again, answer so far included."""
        victim = max(rank.running + rank.prefilling, key=lambda r: r.number)
        if victim in rank.running:
            victim.need = victim.isl + victim.written
        (rank.running if victim in rank.running else rank.prefilling).remove(victim)
        victim.preempted, victim.done, rank.stuck = victim.preempted + 1, 0, False
        self.queue(rank, victim)

    def deal(self, i: Instance) -> list[tuple[Rank, Request, int]]:
        pieces = []
        empty = not any(self.seated(rank) for rank in i.ranks)
        for rank in i.ranks:
            left = i.budget - (0 if self.waits else len(rank.running))
            at = own = 0
            while left > 0:
                if at == len(rank.prefilling):
                    if not self.admit(i, rank, empty=empty):
                        break
                    continue
                r = rank.prefilling[at]
                want = r.need - r.done
                whole = self.scheduler == "prefill-first"
                if whole and want > left and own:
                    break
                tokens = want if whole else min(want, left)
                pieces.append((rank, r, tokens))
                left, own, at = left - tokens, own + tokens, at + 1
        return pieces

    def admit(self, i: Instance, rank: Rank, *, empty: bool) -> bool:
        if not rank.waiting or rank.stuck or len(self.seated(rank)) >= i.seats:
            return False
        r = rank.waiting[0]
        if (i.role == "decode" and not r.preempted) or (self.scheduler == "static" and not empty):
            return False
        room = 0
        if self.seated(rank):
            to_write = sum(q.osl - q.written for q in self.seated(rank))
            mine = r.osl - r.written
            if self.scheduler == "static":
                room = self.blocks(to_write + mine)
            elif self.scheduler == "sglang":
                room = self.blocks(math.ceil(0.7 * to_write) + mine)
        if self.blocks(r.need) + room > self.capacity - self.held(rank):
            rank.stuck = True
            return False
        rank.waiting.pop(0)
        r.done, r.started = min(r.prefix, r.need - 1), self.time
        rank.prefilling.append(r)
        return True
