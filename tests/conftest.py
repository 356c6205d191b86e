"""Shared fixtures: tiny random models of every architecture, and the real data where it is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: no test may reach out

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
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

from umaf.models.quiet import quiet

torch.set_num_threads(1)

# Vocabularies are spelled out, because training one gives ties in another order in each process.
WORDS = (
    "the film was good and music bad kind doctor wrote a letter about small town review positive negative answer "
    "rain fell on hills sentiment Answer yes no in is of joy poor class one two three"
).split()
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'()-"
VOCABULARY = 384


def _byte_level() -> PreTrainedTokenizerFast:
    tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS[:24]:
        grown = "Ġ"
        for letter in word:
            merges[grown, letter] = None
            grown += letter
            tokens.append(grown)
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", bos_token="<|end|>")


def _word_piece() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *CHARACTERS, *(f"##{sign}" for sign in CHARACTERS), *WORDS]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, **{f"{key}_token": name for key, name in names.items()}
    )


def _metaspace(*, bos: bool) -> PreTrainedTokenizerFast:
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    pieces = [(token, 0.0) for token in special]
    pieces += [(token, -9.0) for token in ("▁", "\n", *CHARACTERS)]
    pieces += [(f"▁{word}", -3.0 - 0.01 * i) for i, word in enumerate(dict.fromkeys(WORDS))]
    core = Tokenizer(models.Unigram(pieces, unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    begin = {"single": "<s> $A", "special_tokens": [("<s>", 3)]}
    end = {"single": "$A </s>", "special_tokens": [("</s>", 1)]}
    core.post_processor = processors.TemplateProcessing(**(begin if bos else end))
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
    "llama": (
        lambda: _metaspace(bos=True),
        lambda: LlamaConfig(**{**_GROUPED, "bos_token_id": 3, "eos_token_id": 1}),
        AutoModelForCausalLM,
    ),
    "qwen3": (_BYTES, lambda: Qwen3Config(**_GROUPED, head_dim=8), AutoModelForCausalLM),
    "gemma": (_BYTES, lambda: GemmaConfig(**_GROUPED, head_dim=8), AutoModelForCausalLM),
    "gpt2": (
        _BYTES,
        lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **_IDS),
        AutoModelForCausalLM,
    ),
    "gpt_neox": (
        _BYTES,
        lambda: GPTNeoXConfig(**_SIZE, **_IDS, max_position_embeddings=128),
        AutoModelForCausalLM,
    ),
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
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        ),
        AutoModelForSeq2SeqLM,
    ),
    "mixtral": (_BYTES, lambda: MixtralConfig(**_GROUPED, num_local_experts=4), AutoModelForCausalLM),
    "qwen2_moe": (
        _BYTES,
        lambda: Qwen2MoeConfig(
            **_GROUPED,
            num_experts=4,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            num_experts_per_tok=2,
        ),
        AutoModelForCausalLM,
    ),
    "rwkv": (
        _BYTES,
        lambda: RwkvConfig(
            hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, context_length=128, **_IDS
        ),
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
            with quiet():
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


@pytest.fixture(scope="session")
def cluster():
    """One local Ray for all tests of a process: a second one after it takes the first one's tasks for its own."""
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install umaf[ray]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False
        )
        yield ray
        ray.shutdown()
