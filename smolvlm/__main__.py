"""`python -m smolvlm`, which is what torchrun starts."""

from smolvlm.commands.cli import main

main()
