"""Fuzzed inputs for `smolvlm check`: `python -m fuzz`, or `make fuzz`."""
