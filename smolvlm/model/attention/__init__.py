"""Attention over packs: query q sees key k <=> k <= q < scope_end[k], and nothing else is computed.

The loader makes an `AttentionPlan` of a pack from `scope_end`, in numpy, on the CPU; the forward
pass lays it over the pack's tensors on their device and gets the `Scope` that every layer asks. So
nothing of a pack's shape is ever read back from a device. `rule.py` chooses the back end and knows
transformers; `sdpa.py` is that of CPU and MPS, `flex.py` that of CUDA, and
`varlen.py` another of CUDA for packs without branches.
"""
