"""What the zoo holds: one row per model, each an ordinary `transformers` configuration."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
)

WINDOW = 128


@dataclass(frozen=True)
class Row:
    """One model of the zoo: its shape, its vocabulary, and how long it is pretrained."""

    name: str
    vocabulary: str
    config: PreTrainedConfig
    steps: int
    rate: float


def _llama(width: int, layers: int, inner: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=1024, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=WINDOW, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _gpt2(width: int, layers: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=2048, n_embd=width, n_layer=layers, n_head=4, n_positions=WINDOW, tie_word_embeddings=True,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def _bert(width: int, layers: int) -> BertConfig:
    return BertConfig(
        vocab_size=2048, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=4 * width, max_position_embeddings=WINDOW, hidden_dropout_prob=0.0, initializer_range=0.07,
        attention_probs_dropout_prob=0.0, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip


def _t5(width: int, layers: int) -> T5Config:
    return T5Config(
        vocab_size=2048, d_model=width, d_kv=32, d_ff=4 * width, num_layers=layers, num_decoder_layers=layers,
        num_heads=4, dropout_rate=0.0, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip


def _mixtral(width: int, layers: int, inner: int) -> MixtralConfig:
    return MixtralConfig(
        vocab_size=1024, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=WINDOW, num_local_experts=4,
        num_experts_per_tok=2, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        output_router_logits=False, router_aux_loss_coef=0.02,
    )  # fmt: skip


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("llama-1m", "bpe", _llama(128, 4, 344), 1400, 3e-3),
        Row("bert-1m", "wordpiece", _bert(128, 4), 1400, 1e-3),
        Row("gpt2-1m", "bytes", _gpt2(128, 4), 1400, 3e-3),
        Row("t5-1m", "unigram", _t5(128, 2), 1400, 3e-3),
        Row("mixtral-1m", "bpe", _mixtral(128, 3, 256), 1400, 3e-3),
        Row("llama-5m", "bpe", _llama(256, 5, 688), 700, 2e-3),
        Row("gpt2-5m", "bytes", _gpt2(256, 5), 700, 2e-3),
        Row("bert-5m", "wordpiece", _bert(256, 5), 600, 7e-4),
    )
}


def fresh(row: Row) -> PreTrainedModel:
    """Make the untrained model of a row through its plain `transformers` class."""
    kind = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}.get(
        row.config.model_type, AutoModelForCausalLM
    )
    return kind.from_config(row.config)
