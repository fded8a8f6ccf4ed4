"""The bridge as it would be if the worker did the formatting: what the real one is held against.

At each epoch it computes the percentage, words the message, takes the wall
time as text and builds a state and a metric, under the same lock.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime


class FormatInWorkerBridge:
    """Holds a finished state instead of a raw record."""

    def __init__(self, total_epochs: int, batches_per_epoch: int) -> None:
        self._total_epochs = total_epochs
        self._batches = batches_per_epoch
        self._lock = threading.RLock()  # guards the fields below
        self._state: dict[str, object] = {}
        self._metrics: list[dict[str, object]] = []

    def on_epoch(self, epoch: int, total_epochs: int, metrics: dict[str, float]) -> None:
        """Format everything a reader might want to see, and keep it."""
        items = (epoch + 1) * self._batches
        percentage = 5.0 + 90.0 * items / (total_epochs * self._batches)
        now = datetime.now(UTC).isoformat()
        with self._lock:
            self._state = {
                "percentage": percentage,
                "message": f"Epoch {epoch + 1}/{total_epochs}",
                "timestamp": now,
                "phase": "training",
                "current_step": epoch + 1,
                "total_steps": total_epochs,
                "items_processed": items,
                "items_total": total_epochs * self._batches,
            }
            self._metrics.append(
                {
                    "epoch": epoch + 1,
                    "timestamp": now,
                    "train_loss": metrics.get("train_loss"),
                    "train_accuracy": metrics.get("train_accuracy"),
                    "val_loss": metrics.get("val_loss"),
                    "val_accuracy": metrics.get("val_accuracy"),
                    "learning_rate": metrics.get("learning_rate"),
                    "duration": metrics.get("duration"),
                }
            )
