"""smolvlm: fine-tune SmolVLM-family vision-language models, packed, exact and fast."""

__version__ = "0.1.0"
