"""A model's fast tokenizer, able to pad and to say which characters a token covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from umaf.errors import ModelError

_FILES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.txt", "vocab.json", "tekken.json"),
)


def open_tokenizer(
    place: str, *, trust_remote_code: bool = False, local_files_only: bool = False, size: int | None = None
) -> Any:
    """Opens the tokenizer that lies with a model.

    Args:
        place: a folder or hub id.
        trust_remote_code: run the code that comes with it.
        local_files_only: ask no hub.
        size: the model's vocabulary; a folder without any tokenizer and with 256 reads plain bytes.

    Returns:
        A fast tokenizer. One without a padding token gets an existing token for it, so that the
        vocabulary keeps its size.

    Raises:
        ModelError: there is no tokenizer, or it is not a fast one.
    """
    lack = f'The model "{place}" has no fast tokenizer'
    want = "umaf needs one to place characters; put a tokenizer.json in the model's folder."
    folder = Path(place)
    # Without any file, some tokenizer classes come up with an empty vocabulary instead of failing.
    if folder.is_dir() and not any((folder / file).is_file() for file in _FILES):
        if size == 256:
            return byte_tokenizer()
        raise ModelError(f"{lack}; {want}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, trust_remote_code=trust_remote_code, local_files_only=local_files_only
        )
    except Exception as error:
        raise ModelError(f"{lack}; {want}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or len(tokenizer) == 0:
        raise ModelError(f"{lack} ({type(tokenizer).__name__}); {want}")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of models that read UTF-8 bytes: token 65 is the byte 65.

    Example:
        >>> byte_tokenizer()("A b")["input_ids"]
        [65, 32, 98]
    """
    # The signs byte-level vocabularies write bytes with (GPT-2): a printable byte is its own character,
    # the others are counted up from 256.
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    signs = {byte: chr(byte) for byte in own} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
    core = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in signs.items()}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    # Byte 0 never stands in text, so it can pad.
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=signs[0])
