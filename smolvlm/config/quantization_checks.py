"""What `quantization` cannot ask for beside the other settings."""

from collections.abc import Iterator

from smolvlm.config.adapters import PARTS
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import RunConfig


def quantization_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield settings without effect, and quantised towers that could not learn, or what is learned not be saved."""
    own = config.quantization
    readers = {"quant_type": own.bits == 4, "double_quant": own.bits == 4, "towers": own.bits is not None}
    for name, is_read in readers.items():
        value = getattr(own, name)
        if not is_read and value is not None:
            cause = "8 bits" if own.bits else "no quantization.bits"
            key = f"quantization.{name}"
            yield Problem(key=key, value=shown_value(value), what=f"has no effect with {cause}", fix="take it out")
    if own.bits is None:
        return
    entries = dict(config.adapters.entries())
    for part in dict.fromkeys(own.parts):
        entry = entries.get(part)
        if entry is not None and entry.type == "pissa":
            what = f"it takes the base's weights apart, and quantization holds them in {own.bits} bits"
            fix = "choose lora, rslora or dora, or quantise other towers"
            yield Problem(key=f"adapters.{part}", value="'pissa'", what=what, fix=fix)
        elif (entry is None or not entry.is_adapter) and config.rate_of(part) > 0:
            what = f"weights in {own.bits} bits are not trained, and train.{PARTS[part]} = {config.rate_of(part):g}"
            fix = f"add adapters.{part}: lora, or set the rate to 0, or quantise other towers"
            yield Problem(key="quantization.towers", value=shown_value(part), what=what, fix=fix)
    if not any(entry.is_adapter for entry in entries.values()):
        what = "what is saved is an adapter, and no tower has one"
        yield Problem(key="quantization.bits", value=str(own.bits), what=what, fix="add adapters.language: lora")
    if len(set(own.parts)) < len(own.parts):
        value = shown_value(list(own.parts))
        yield Problem(key="quantization.towers", value=value, what="names a tower twice", fix="name it once")
    if config.train.arguments.get("fsdp"):
        what = "quantised weights cannot be cut into the shards of train.fsdp"
        yield Problem(key="quantization.bits", value=str(own.bits), what=what, fix="take one of the two out")
