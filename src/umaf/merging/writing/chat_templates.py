"""Chat templates that a recipe may name: the common formats, written out as Jinja."""

from __future__ import annotations

import re

from umaf.errors import ConfigError, did_you_mean

_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_ALPACA = """\
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{{- message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'user' %}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' }}
{%- else %}
{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\\n' }}
{%- endif %}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_MISTRAL = """\
{{- bos_token }}
{%- set head = namespace(text='') %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}
{%- set head.text = message['content'] + '\\n\\n' %}
{%- elif message['role'] == 'user' %}
{{- '[INST] ' + head.text + message['content'] + ' [/INST]' }}
{%- set head.text = '' %}
{%- else %}
{{- ' ' + message['content'] + eos_token }}
{%- endif %}
{%- endfor %}
"""

_EXAONE = """\
{%- for message in messages %}
{%- if message['role'] == 'user' %}
{{- '[|user|]' + message['content'] + '\\n' }}
{%- else %}
{{- '[|' + message['role'] + '|]' + message['content'] + '[|endofturn|]\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '[|assistant|]' }}
{%- endif %}
"""

TEMPLATES = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}
"""Name in recipes to the template."""


def check_template(asked: str) -> None:
    """Refuse a chat template that a recipe asks for and that is none.

    Args:
        asked: "auto", a name of `TEMPLATES`, or Jinja.

    Raises:
        ConfigError: no template has this name, or it is no Jinja.

    Example:
        >>> check_template("chatlm")
        Traceback (most recent call last):
            ...
        umaf.errors.ConfigError: There is no chat template 'chatlm'. Did you mean "chatml"?
    """
    if asked == "auto" or asked in TEMPLATES:
        return
    if "{" not in asked:
        hint = (
            did_you_mean(asked, TEMPLATES) or f" It can be auto, {', '.join(TEMPLATES)}, or a Jinja template."
        )
        raise ConfigError(f"There is no chat template {asked!r}.{hint}")
    try:  # it comes with torch, and is needed by nothing else here
        from jinja2 import Environment, TemplateSyntaxError
    except ImportError:
        return
    # transformers knows one tag more, around what the model says; it holds what any block may hold.
    text = re.sub(r"\bgeneration\b(?=\s*[-+]?%})", "if true", asked)
    text = re.sub(r"\bendgeneration\b(?=\s*[-+]?%})", "endif", text)
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"], trim_blocks=True, lstrip_blocks=True).parse(text)
    except TemplateSyntaxError as problem:
        raise ConfigError(
            f"The chat template is no Jinja ({str(problem.message).rstrip('.')}); mend it."
        ) from problem
