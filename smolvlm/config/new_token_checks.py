"""What the settings of new tokens cannot ask for beside the others."""

from collections.abc import Iterator

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import RunConfig


def new_token_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield settings of token rows without effect, and new tokens whose rows nothing would train or save."""
    train, names = config.train, "model.new_tokens"
    given = {"new_tokens_lr": train.new_tokens_lr is not None, "trainable_tokens": bool(train.trainable_tokens)}
    if config.trains_language_whole:
        for name in (name for name, is_given in given.items() if is_given):
            what = "has no effect: the language model trains in full, and every row with it"
            fix = "take it out, or write `adapters: {language: lora}` (or frozen)"
            yield Problem(key=f"train.{name}", value=shown_value(getattr(train, name)), what=what, fix=fix)
        frozen = [name for name in ("embeddings", "output_head") if getattr(config.freeze, name)]
        if config.model.new_tokens and frozen:
            what = "their rows would stay as they begin: freeze." + " and freeze.".join(frozen)
            fix = "write `adapters: {language: lora}`, which trains these rows by themselves"
            yield Problem(key=names, what=what, fix=fix)
        return
    if not config.model.new_tokens and not train.trainable_tokens:
        if given["new_tokens_lr"]:
            value = shown_value(train.new_tokens_lr)
            yield Problem(
                key="train.new_tokens_lr", value=value, what=f"has no effect without {names}", fix="take it out"
            )
    elif not config.token_rows_lr:
        what = "their rows would neither train nor be saved: train.new_tokens_lr is 0"
        key = names if config.model.new_tokens else "train.trainable_tokens"
        yield Problem(key=key, what=what, fix="set train.new_tokens_lr above 0, or take it out")
