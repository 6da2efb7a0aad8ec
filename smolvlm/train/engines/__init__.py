"""How the ranks of a run share its work: gradients alone (DDP), or all of it (FSDP2)."""
