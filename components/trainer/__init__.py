"""Trainer: token ids -> vectors, by skip-gram with negative sampling in Keras."""

from components.trainer.dataset import SkipGrams
from components.trainer.trainer import build, held_out_loss

__all__ = ["SkipGrams", "build", "held_out_loss"]
