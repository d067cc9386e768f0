"""Trainer: token ids -> vectors, by skip-gram with negative sampling in Keras."""

from components.trainer.dataset import SkipGrams
from components.trainer.losses import comparable_losses, frequency_loss, held_out_loss
from components.trainer.trainer import build

__all__ = ["SkipGrams", "build", "comparable_losses", "frequency_loss", "held_out_loss"]
