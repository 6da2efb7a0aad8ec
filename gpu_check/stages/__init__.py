"""The checks, one module a stage (`speed` serves three); each has `run(settings, report)`."""
