"""`python -m smolvlm`, which is what torchrun starts."""

from smolvlm.cli.main import main

main()
