"""`make gpu-check`: what only a GPU can show, in one short run on a bare machine.

In: this tree, and a folder of wheels for what the machine lacks. Out: one JSON line a stage, a
table and a log. The stages run in processes of their own under time limits, so that a crash, a hang
or full memory costs one stage and not the run. Modules at this level import nothing but the
standard library and `packaging`; `material` makes models and rows without any download, `stages`
holds the checks.
"""
