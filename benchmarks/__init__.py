"""Comparisons with other trainers; not part of the installed package. `make bench` runs
`benchmarks.bench`."""
