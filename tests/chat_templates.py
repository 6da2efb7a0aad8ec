"""Chat templates for tests: the family's own, and of other kinds that checkpoints come with.

The layouts are those of public checkpoints; the texts are written anew.
"""

from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE
from smolvlm.datasets.encoding.split_template import ChatTemplate

RELEASED = ChatTemplate(
    source=RELEASED_TEMPLATE, special_tokens=("<|im_start|>", "<end_of_utterance>", "<image>")
)

ROLE_TAGS = ChatTemplate(
    source="""{%- for message in messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}
{%- for part in message['content'] -%}
{{- part['text'] if part['type'] == 'text' else '<image>' -}}
{%- endfor -%}
{{- '<|end_of_text|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_of_role|>assistant<|end_of_role|>' -}}{%- endif -%}""",
    special_tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<image>"),
)
"""As granite-docling writes it: roles between tags, and another end."""

BEGIN_OF_TEXT = ChatTemplate(
    source=RELEASED_TEMPLATE.replace("<|im_start|>", "{{ bos_token }}"),
    special_tokens=("<|begin_of_text|>", "<end_of_utterance>", "<image>"),
    variables=(("bos_token", "<|begin_of_text|>"),),
)
"""As Idefics3-8B-Llama3 writes it: the family's words behind another beginning, named by a
variable."""

TRIMMED_TEXT = ChatTemplate(
    source="""{% for m in messages %}
{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{{ m['content'] | trim }}<|eot_id|>
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}""",
    special_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"),
)
"""As language models of the Llama 3 kind have it: contents are plain text, and are trimmed."""

DEFAULT_SYSTEM = ChatTemplate(
    source="""{% if messages[0]['role'] != 'system' %}<|im_start|>system
You are helpful.<|im_end|>
{% endif %}{% for m in messages %}{% generation %}<|im_start|>{{ m['role'] }}
{% for c in m['content'] %}{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}
{{- '<|im_end|>' }}
{% endgeneration %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}""",
    special_tokens=("<|im_start|>", "<|im_end|>", "<image>"),
)
"""ChatML with a system turn of its own where a conversation has none."""

ALL = {
    "released": RELEASED,
    "role tags": ROLE_TAGS,
    "begin of text": BEGIN_OF_TEXT,
    "trimmed text": TRIMMED_TEXT,
    "default system": DEFAULT_SYSTEM,
}
