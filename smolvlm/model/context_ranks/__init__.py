"""One pack on several ranks: each holds some of its tokens, and all of the model.

`partition.py` deals a pack's tokens to the ranks of a context group, by visible pairs. `share.py`
is what a rank's loader finds out of the rest of the pack; `group.py` is the group while the model
runs: keys and values gathered, or passed round (`ring.py`), features of tiles sent to those that
show them (`collectives.py`). The attention itself is a rectangle, own queries by some keys:
`attention/rectangle.py` and `attention/flex_rectangle.py`.
"""
