"""The Transformer Encoder: reads the coordinates of probes as a set of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = 4
HEADS = 8
FEED_FORWARD = 2048
WIDTH = 512


class TransformerEncoder(nn.Module):
    """Four pre-norm layers over one token per probe and depth, then attention pooling.

    A token enters by a linear map plus an embedding of its depth. There is no position: the order
    of the probes carries nothing, and permuting them changes nothing.

    Args:
        anchors: number of anchors; a token holds twice as many numbers.
        depths: number of depths.
        behaviour: also reads the behavioural token, which is numbered as a further depth.

    Source: Vaswani et al., 2017; pre-norm: Xiong et al., ICML 2020; attention pooling of sets: Lee
    et al., Set Transformer, ICML 2019, section 3.2, with one seed and one head.

    Example:
        >>> import torch
        >>> encoder = TransformerEncoder(anchors=4, depths=2).eval()
        >>> encoder(torch.zeros(1, 6, 8), torch.tensor([0, 0, 0, 1, 1, 1])).shape
        torch.Size([1, 512])
    """

    def __init__(self, *, anchors: int, depths: int, behaviour: bool = False) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * anchors, WIDTH)
        self.depth = nn.Embedding(depths + int(behaviour), WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, FEED_FORWARD, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )
        self.attend = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, tokens: Tensor, depths: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read batches of token sets.

        Args:
            tokens: `[batch, token, 2 * anchor]`.
            depths: `[token]` or `[batch, token]`, the number of each token's depth.
            mask: `[batch, token]`, true for real tokens; all by default.

        Returns:
            `[batch, 512]`.
        """
        missing = None if mask is None else ~mask.bool()
        hidden = self.layers(self.enter(tokens) + self.depth(depths), src_key_padding_mask=missing)
        scores = self.attend(hidden)[..., 0] / WIDTH**0.5
        if missing is not None:
            scores = scores.masked_fill(missing, float("-inf"))
        return torch.einsum("bt,bth->bh", scores.softmax(-1), hidden)
