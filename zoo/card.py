"""Write a model of the zoo with its card: weights in float16, the tokenizer, and what it was made from."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from umaf.files import whole_folder
from zoo.configs import Row

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: {pipeline}
tags: [umaf-zoo]
---
# {name}

A {kind} of {parameters:,} parameters ({shape}), pretrained by `python -m zoo.build --only {name}` on about
{tokens:.1f} million tokens; {vocabulary} vocabulary of {vocab:,}. It is made for tests, first runs and benchmarks
of umaf, not for use: it knows little, and repeats what its small corpus says.

Final training loss: {loss:.2f} (mean of the last five checkpoints).

## Data and licences

Running text: Charlotte Bronte, Charles Darwin and W. E. B. Du Bois (public domain, Project Gutenberg),
US inaugural addresses (public domain), tiny Shakespeare (public domain), WikiText-2 (CC BY-SA 3.0), makemore's names
(MIT), stories sampled from stories260K (MIT), AQuA (Apache-2.0), ARC (CC BY-SA 4.0), CommonsenseQA (MIT), GSM8K (MIT),
OpenBookQA (Apache-2.0), LLMs-from-scratch instructions (Apache-2.0) and Self-Instruct (Apache-2.0).

Prompts with answers, train split of the bank only (`src/umaf/tasks/splits.json`): GoEmotions (Apache-2.0), MultiNLI
(OANC / CC BY 3.0 / CC BY-SA 3.0), BoolQ questions (CC BY-SA 3.0), StrategyQA (MIT), train classes of clinc150
(CC BY 3.0) and banking77 (CC BY 4.0), function-vector tasks (MIT), instruction-induction tasks (Apache-2.0).

No text, class or capability of the bank's validation and held-out splits was in training.
"""

PIPELINES = {"bert": "fill-mask", "t5": "text2text-generation"}


def write(
    folder: Path, row: Row, net: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, curve: list[dict]
) -> None:
    """Write a trained model; nothing half-written stays."""
    config = row.config
    width = getattr(config, "hidden_size", None) or config.d_model
    last = [point["loss"] for point in curve[-5:]]
    text = CARD.format(
        name=row.name, kind=config.model_type, pipeline=PIPELINES.get(config.model_type, "text-generation"),
        parameters=sum(p.numel() for p in net.parameters()), shape=f"{config.num_hidden_layers} layers, width {width}",
        tokens=row.steps * 4096 / 1e6, vocabulary=row.vocabulary, vocab=config.vocab_size, loss=sum(last) / len(last),
    )  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as partial:
        net.to(torch.float16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(text)
