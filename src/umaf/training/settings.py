"""How a stage is trained: one frozen value, for Python, the command line and the card."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LoopSettings(BaseModel):
    """How long and how fast.

    Attributes:
        steps: gradient steps at most.
        rate: peak learning rate of AdamW; linear warm-up over a tenth of the steps, then cosine to a tenth.
        decay: weight decay of matrices.
        clip: largest norm of the gradient.
        look_every: steps between two looks at the validation capabilities.
        patience: looks without a better score before training stops; 0 never stops early.
        keep_every: steps between two states on disk.
        bfloat16: multiply matrices in bfloat16; parameters stay float32.
        seed: of everything random.

    Example:
        >>> LoopSettings(steps=20).patience
        8
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    steps: int = Field(default=2000, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    look_every: int = Field(default=100, ge=1)
    patience: int = Field(default=8, ge=0)
    keep_every: int = Field(default=100, ge=1)
    bfloat16: bool = False
    seed: int = 0
