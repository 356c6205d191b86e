"""Shared fixtures: tiny random models of every architecture, and the real data where it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: no test may reach out

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    DistilBertConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen3Config,
    RobertaConfig,
    RwkvConfig,
    T5Config,
)

torch.set_num_threads(1)

CORPUS = (
    "the film was good and the music was bad",
    "a kind doctor wrote a letter about the small town",
    "review: positive or negative? answer: positive",
    "rain fell on the hills. sentiment: negative\n",
    "Answer: yes\nAnswer: no\n, ! 0 1 2 3 4 5 6 7 8 9",
)
VOCABULARY = 384


def _byte_level() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", bos_token="<|end|>")


def _word_piece() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **{f"{key}_token": name for key, name in names.items()})


def _metaspace(*, bos: bool) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    core.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    ends = {"single": "<s> $A", "special_tokens": [("<s>", 3)]} if bos else {
        "single": "$A </s>", "special_tokens": [("</s>", 1)]
    }
    core.post_processor = processors.TemplateProcessing(**ends)
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


_SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_IDS = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": VOCABULARY}
_GROUPED = {**_SIZE, **_IDS, "num_key_value_heads": 2, "max_position_embeddings": 128}
_BYTES, _PIECES = _byte_level, _word_piece
_ROWS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Callable[[], PreTrainedConfig], type]] = {
    "bert": (
        _PIECES,
        lambda: BertConfig(**_SIZE, vocab_size=VOCABULARY, max_position_embeddings=128),
        AutoModelForMaskedLM,
    ),
    "roberta": (
        _PIECES,
        lambda: RobertaConfig(**_SIZE, vocab_size=VOCABULARY, max_position_embeddings=130, pad_token_id=0),
        AutoModelForMaskedLM,
    ),
    "distilbert": (
        _PIECES,
        lambda: DistilBertConfig(
            dim=32, hidden_dim=48, n_layers=2, n_heads=4, vocab_size=VOCABULARY, max_position_embeddings=128
        ),
        AutoModelForMaskedLM,
    ),
    "llama": (lambda: _metaspace(bos=True), lambda: LlamaConfig(**{**_GROUPED, "bos_token_id": 3, "eos_token_id": 1}), AutoModelForCausalLM),
    "qwen3": (_BYTES, lambda: Qwen3Config(**_GROUPED, head_dim=8), AutoModelForCausalLM),
    "gemma": (_BYTES, lambda: GemmaConfig(**_GROUPED, head_dim=8), AutoModelForCausalLM),
    "gpt2": (
        _BYTES,
        lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **_IDS),
        AutoModelForCausalLM,
    ),
    "gpt_neox": (_BYTES, lambda: GPTNeoXConfig(**_SIZE, **_IDS, max_position_embeddings=128), AutoModelForCausalLM),
    "phi": (_BYTES, lambda: PhiConfig(**_GROUPED), AutoModelForCausalLM),
    "opt": (
        _BYTES,
        lambda: OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            max_position_embeddings=128,
            pad_token_id=0,
            **_IDS,
        ),
        AutoModelForCausalLM,
    ),
    "t5": (
        lambda: _metaspace(bos=False),
        lambda: T5Config(
            vocab_size=160, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        ),
        AutoModelForSeq2SeqLM,
    ),
    "mixtral": (_BYTES, lambda: MixtralConfig(**_GROUPED, num_local_experts=4), AutoModelForCausalLM),
    "qwen2_moe": (
        _BYTES,
        lambda: Qwen2MoeConfig(
            **_GROUPED, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts_per_tok=2
        ),
        AutoModelForCausalLM,
    ),
    "rwkv": (
        _BYTES,
        lambda: RwkvConfig(hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, context_length=128, **_IDS),
        AutoModelForCausalLM,
    ),
}
ARCHITECTURES = tuple(_ROWS)


@pytest.fixture(scope="session")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``pico(model_type)`` gives a folder with a tiny random model of that type and its tokenizer.

    The folders are shared by the whole run: copy one before changing a file in it.
    """
    made: dict[str, Path] = {}

    def make(model_type: str) -> Path:
        if model_type not in made:
            tokenizer, config, auto = _ROWS[model_type]
            folder = tmp_path_factory.mktemp(f"pico-{model_type}") / model_type
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(len(model_type))
                net = auto.from_config(config())
                for parameter in net.parameters():  # far from the init's near-zero outputs
                    if parameter.dim() > 1:
                        torch.nn.init.normal_(parameter, std=0.15)
            net.save_pretrained(folder)
            tokenizer().save_pretrained(folder)
            made[model_type] = folder
        return made[model_type]

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real text; skips where the checkout stands alone."""
    from umaf.tasks.door import find_data

    folder = find_data(None)
    if folder is None:
        pytest.skip("no real text beside the checkout (set UMAF_DATA, or put shared/data next to it)")
    return folder
