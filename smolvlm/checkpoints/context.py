"""How long a conversation a model can hold, and the scaling of its rotary embeddings that makes it
longer.

In: a model's configuration. Out: its context in tokens; or the configuration scaled, in place and
before weights load, in the form that transformers 5 reads, so that what is saved is the same model
in plain transformers.

A pack holds conversations of many lengths and gives equal results only where frequencies depend on
none of them. Linear scaling and YaRN are so. transformers' `dynamic` is not: its frequencies follow
the longest position of the forward, and stay until a short one comes. Here `dynamic` is taken at
one length, the new context, for all conversations: it then is an enlarged rotary base and nothing
else, and is written as that.
"""

import json
from pathlib import Path

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.config.rope import RopeScaling
from smolvlm.errors import ConfigError
from smolvlm.model.flops import head_width
from smolvlm.protocols import TextConfig, VisionLanguageConfig

RECORD = "rope_extension"
"""Where a scaled `text_config` says what it was scaled by; other programs pass it over."""
_CHANGING = ("dynamic", "longrope")
"""Types of transformers' whose frequencies change where a conversation goes beyond the length
trained for."""


def context_tokens(model_config: VisionLanguageConfig) -> int:
    """Return how many tokens a conversation may have.

    Where frequencies would change with the length it is the length up to which they do not.
    """
    text = model_config.text_config
    rope = text.rope_parameters
    if rope["rope_type"] in _CHANGING:
        return int(rope.get("original_max_position_embeddings", text.max_position_embeddings))
    return int(text.max_position_embeddings)


def scale_context(model_config: VisionLanguageConfig, scaling: RopeScaling) -> None:
    """Scale a configuration's rotary embeddings, in place, unless they are scaled so already.

    Raises:
        ConfigError: it is scaled in another way, or the new context is no whole number.
    """
    text = model_config.text_config
    record = scaling.model_dump(exclude_none=True)
    if getattr(text, RECORD, None) == record:
        return
    old, rope = text.max_position_embeddings, text.rope_parameters
    if hasattr(text, RECORD) or rope["rope_type"] != "default":
        there = getattr(text, RECORD, None) or {
            "type": rope["rope_type"],
            "factor": rope.get("factor"),
        }
        what = (
            f"the checkpoint's context is extended already ({there['type']}, factor "
            f"{there['factor']})"
        )
        fix = "take it out, or begin at the checkpoint as it was before"
        raise ConfigError(what, where="model.rope_scaling", fix=fix)
    new = round(old * scaling.factor)
    if new != old * scaling.factor:
        what = f"{scaling.factor:g} times the checkpoint's {old} positions is no whole number"
        near = max(new, old + 1)
        raise ConfigError(
            what,
            where="model.rope_scaling.factor",
            fix=f"set it to {near / old!r}, for {near} positions",
        )
    text.rope_parameters = _rope_parameters(text, scaling, old=old, new=new)
    text.max_position_embeddings = new
    setattr(text, RECORD, record)


def _rope_parameters(
    text: TextConfig, scaling: RopeScaling, *, old: int, new: int
) -> dict[str, object]:
    """Return what transformers 5 calls so."""
    base = text.rope_parameters["rope_theta"]
    match scaling.type:
        case "linear":
            return {"rope_type": "linear", "factor": scaling.factor, "rope_theta": base}
        case "dynamic":  # the rule of transformers' `dynamic`, for a conversation of `new` tokens
            width = head_width(text)
            growth = scaling.factor * new / old - (scaling.factor - 1)
            return {"rope_type": "default", "rope_theta": base * growth ** (width / (width - 2))}
        case "yarn":
            settings = scaling.model_dump(exclude_none=True, exclude={"type"})
            return {
                "rope_type": "yarn",
                "rope_theta": base,
                "original_max_position_embeddings": old,
                **settings,
            }


def name_rope_for_older_readers(config_file: Path) -> None:
    """Write a saved configuration's rotary base and scaling under their older names too.

    Readers that know these alone would silently take a base of 10,000 and no scaling.
    """
    if not config_file.is_file():
        return
    config = read_object(config_file)
    text = config["text_config"]
    rope = dict(text["rope_parameters"])
    text["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        text["rope_scaling"] = rope
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
