"""Trainer: token ids -> vectors, by skip-gram with negative sampling in Keras."""

from components.trainer.dataset import SkipGrams
from components.trainer.trainer import build, comparable_losses, held_out_loss

__all__ = ["SkipGrams", "build", "comparable_losses", "held_out_loss"]
