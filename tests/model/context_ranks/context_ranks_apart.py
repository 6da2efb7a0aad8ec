"""Gathered and ring attention, and the exchange of rows, on two and on four ranks, with gradients.

`context_ranks_apart.py LOGS`: exit status 0 means that every rank found what one rank finds.
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
sys.path.insert(0, str(Path(__file__).parents[2] / "train"))

import numpy as np
import torch
import torch.distributed as dist
from forking import be_rank, codes, forked, free_port

from smolvlm.model.attention.rectangle import plan_parts_rectangle
from smolvlm.model.context_ranks.collectives import exchange_rows
from smolvlm.model.context_ranks.group import ContextGroup
from smolvlm.model.context_ranks.partition import deal_tokens
from smolvlm.model.context_ranks.share import ContextShare
from tests.model.attention.dense_rule import SCALE, dense, scope_end_of, states

TREE = (40, [(150, []), (3, []), (90, [(30, []), (20, [])])])
PACKS = {
    "one": [(601, [])],
    "short": [(int(size), []) for size in range(20, 60)],
    "trees": [TREE, (7, []), (9, [(4, []), (4, [])]), TREE],
    "fewer than a stretch": [(1, []), (4, [(1, []), (2, [])])],
}


def share_of(scope_end: np.ndarray, held: tuple[np.ndarray, ...], *, goes_round: bool):
    rank = dist.get_rank()
    key_sets = held if goes_round else (np.arange(len(scope_end)),)
    longest = max(map(len, held))
    order = np.zeros(len(scope_end), np.int64)
    for owner, positions in enumerate(held):
        order[positions] = owner * longest + np.arange(len(positions))
    return ContextShare(
        rank=rank,
        num_tokens=tuple(map(len, held)),
        num_counted=len(held[rank]),
        key_order=torch.from_numpy(order),
        rectangles=tuple(plan_parts_rectangle(scope_end, held[rank], keys) for keys in key_sets),
        exchange=None,
        digest=0,
    )


def check_attention(group: ContextGroup) -> None:
    for name, pack in PACKS.items():
        scope_end = scope_end_of(pack)
        held = deal_tokens(scope_end, num_ranks=dist.get_world_size())
        own = held[dist.get_rank()]
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
            inputs = states(len(scope_end), dtype=dtype)
            whole = dense(*inputs, scope_end)
            upstream = torch.linspace(-1, 1, whole.numel(), dtype=dtype).view(whole.shape)
            expected = [whole, *torch.autograd.grad((whole * upstream).sum(), inputs)]
            for goes_round in (False, True):
                scope = group.scope(share_of(scope_end, held, goes_round=goes_round))
                ours = [state.detach()[:, :, own].requires_grad_() for state in inputs]
                output = scope.attend(*ours, scale=SCALE, dropout=0.0)
                loss = (output * upstream[:, :, own]).sum()
                found = [output, *torch.autograd.grad(loss, ours)]
                for our, their in zip(found, expected, strict=True):
                    error = (our - their[:, :, own]).abs().max() / their.abs().max()
                    assert error < tolerance, (name, dtype, goes_round, float(error.detach()))


def check_autocast(group: ContextGroup) -> None:
    """Keys come in float32 there, values in bfloat16; all is computed, and sent, in bfloat16."""
    scope_end = scope_end_of(PACKS["trees"])
    held = deal_tokens(scope_end, num_ranks=dist.get_world_size())
    own = held[dist.get_rank()]
    query, key, value = states(len(scope_end), dtype=torch.float32)
    expected = dense(query, key, value, scope_end)[:, :, own]
    for goes_round in (False, True):
        scope = group.scope(share_of(scope_end, held, goes_round=goes_round))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = scope.attend(
                *(query[:, :, own], key[:, :, own], value[:, :, own].bfloat16()),
                scale=SCALE,
                dropout=0.0,
            )
        assert found.dtype == torch.bfloat16
        assert (found - expected).norm() < 0.01 * expected.norm()


def check_exchange(group: ContextGroup) -> None:
    """Rank r has r rows, and sends the first s of them to rank s."""
    rank, number = dist.get_rank(), dist.get_world_size()
    rows = (torch.arange(rank * 3.0).view(rank, 3) + 10 * rank).requires_grad_()
    num_sent = tuple(min(rank, to) for to in range(number))
    num_received = tuple(min(sender, rank) for sender in range(number))
    sent = torch.cat([rows[:count] for count in num_sent])
    received = exchange_rows(
        sent, num_sent=num_sent, num_received=num_received, group=group.process_group
    )
    expected = [
        torch.arange(sender * 3.0).view(sender, 3)[: min(sender, rank)] + 10 * sender
        for sender in range(number)
    ]
    assert torch.equal(received, torch.cat(expected))
    (received.sum() * (rank + 1)).backward()
    weights = [
        sum(to + 1 for to in range(number) if row < min(rank, to)) for row in range(len(rows))
    ]
    assert torch.equal(rows.grad, torch.tensor(weights).view(-1, 1).expand(-1, 3) * 1.0)


def check_as_rank(rank: int, *, num_ranks: int, port: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    be_rank(rank, num_ranks=num_ranks, port=port)
    dist.init_process_group("gloo")
    group = ContextGroup.join(num_ranks=num_ranks, device_type="cpu")
    check_attention(group)
    check_autocast(group)
    check_exchange(group)
    assert group.has_same([5, 2**61, 7])
    assert not group.has_same([5, 2**61 + rank, 7])
    if num_ranks == 4:
        pair = ContextGroup.join(num_ranks=2, device_type="cpu")
        assert dist.get_process_group_ranks(pair.process_group) == [rank - rank % 2, rank | 1]
        assert pair.has_same([rank // 2])
    dist.destroy_process_group()


logs = Path(sys.argv[1])
for num_ranks in (2, 4):
    port = free_port()
    started = [
        forked(
            partial(check_as_rank, rank, num_ranks=num_ranks, port=port),
            logs / f"rank-{rank}-of-{num_ranks}.log",
        )
        for rank in range(num_ranks)
    ]
    if any(codes(started)):
        print(*(log.read_text() for log in sorted(logs.glob("*.log"))), file=sys.stderr)
        sys.exit(1)
