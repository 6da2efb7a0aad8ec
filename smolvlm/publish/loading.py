"""How a saved model is loaded, as its card says it: a form of the files, its library, its lines.

In: the form, the files, the base. Out: Markdown. The forms are those of `smolvlm export`, and an
adapter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

ExportForm = Literal["transformers", "gguf", "onnx", "browser"]
Form = ExportForm | Literal["adapter"]

LIBRARY: Mapping[Form, str] = {
    "transformers": "transformers",
    "adapter": "peft",
    "gguf": "gguf",
    "onnx": "onnx",
    "browser": "transformers.js",
}
"""As the hub calls what loads them."""

_TRANSFORMERS = """
```python
{imports}AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained("PATH_OR_ID")
{model}
```

Its processor files hold the chat template and how pictures are cut, as in training."""
_GGUF = """
```bash
llama-server --model {model} --mmproj {projector}
```

The second file holds the vision tower; llama.cpp shows each picture as it was shown in training."""
_ONNX = """
Three graphs for onnxruntime: `vision_encoder`, `embed_tokens`, and the decoder with its cache. The
processor is loaded as of any model (`AutoProcessor.from_pretrained("PATH_OR_ID")`)."""
_BROWSER = """
```js
import {{ AutoProcessor, AutoModelForImageTextToText }} from "@huggingface/transformers";

const processor = await AutoProcessor.from_pretrained("PATH_OR_ID");
const model = await AutoModelForImageTextToText.from_pretrained("PATH_OR_ID", {{ dtype: "fp32" }});
```"""


def loading_text(form: Form, *, base: str | None, files: Sequence[str]) -> str:
    """Return the section that says how to load it.

    Args:
        form: of the files.
        base: hub id of an adapter's base; None where it was a folder.
        files: names in the folder.
    """
    return "## How to load it\n" + _lines(form, base, files)


def _lines(form: Form, base: str | None, files: Sequence[str]) -> str:
    if form == "adapter":
        model = (
            f'base = AutoModelForImageTextToText.from_pretrained("{base or "BASE"}")\n'
            'model = PeftModel.from_pretrained(base, "PATH_OR_ID")'
        )
        imports = "from peft import PeftModel\nfrom transformers import "
        return _TRANSFORMERS.format(imports=imports, model=model)
    if form == "gguf":
        weights = [name for name in files if name.endswith(".gguf")]
        projectors = [name for name in weights if "mmproj" in name]
        models = [name for name in weights if name not in projectors]
        return _GGUF.format(model=" ".join(models), projector=" ".join(projectors))
    if form == "onnx":
        return _ONNX
    if form == "browser":
        return _BROWSER.format()
    model = 'model = AutoModelForImageTextToText.from_pretrained("PATH_OR_ID")'
    return _TRANSFORMERS.format(imports="from transformers import ", model=model)


def proof_text(proof: Mapping[str, Any]) -> str:
    """Return the section on how an export was compared with the model that it is of.

    Args:
        proof: content of `proof.json`.
    """
    runtime, prompts = proof["runtime"], proof["prompts"]
    if proof["holds"] is None:
        return f"## Proof\n\nIt was not run where it is for ({proof['not_run']})."
    largest = max(prompt["max_logprob_difference"] for prompt in prompts)
    equal = sum(bool(prompt["greedy_equal"]) for prompt in prompts)
    verdict = "within" if proof["holds"] else "**not** within"
    return f"""## Proof

Run in {runtime} on {len(prompts)} prompts with pictures and compared with what the model itself
answers in transformers, in float32: equal greedy tokens in {equal} of {len(prompts)}, the
log-probabilities of likely tokens at most {largest:.2g} nats apart; {verdict} the bound of
{proof["bound"]:g}. `proof.json` has the figures."""
