"""Settings of what a refresh trains on, and how."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from warehouse.settings.part import Part


class TrainingSettings(Part):
    """What a refresh trains on and how; hyperparameters live in `config_file`."""

    config_file: Path | None = Field(
        None, description="JSON file of GRU4Rec hyperparameters; empty means the defaults."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train: `auto` takes CUDA when a GPU is there."
    )
    threads: int = Field(1, ge=1, description="CPU math threads of training.")
    processes: int = Field(
        1, ge=1, description="Processes that train one network together, each on its own GPU."
    )
    gpu_kernels: bool = Field(
        False,
        description="Train with kernels of ours on a GPU; not timed on one yet (docs/gru4rec.md).",
    )
    seed: int = Field(42, description="Seed of initial weights, negatives and dropout.")
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Seconds between two checkpoints of a training; 0 means none."
    )
    window_days: int = Field(
        90, ge=1, description="Days of events, back from the last, trained on."
    )
    min_item_support: int = Field(
        5, ge=1, description="Steps an item needs inside the window to be in the model."
    )
    min_session_steps: int = Field(2, ge=2, description="Steps a session needs to be trained on.")
    holdout_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the latest sessions kept to judge the model."
    )
    bot_filter: bool = Field(
        True, description="Learn nothing from sessions whose user agents are all known bots'."
    )
    max_session_events: int = Field(
        1_000,
        ge=0,
        description="Views, carts and purchases in a session above which nothing is learned from "
        "it; those of one moment count once, 0 is no limit.",
    )
    max_events_per_minute: int = Field(
        60, ge=0, description="Likewise, those within any 60 seconds of a session; 0 is no limit."
    )
    view_weight: float = Field(
        1.0, gt=0, le=1000, description="How much a step on an item that is only viewed teaches."
    )
    cart_weight: float = Field(
        1.0, gt=0, le=1000, description="Likewise, one that is then put into the cart."
    )
    purchase_weight: float = Field(
        1.0, gt=0, le=1000, description="Likewise, one that the session goes on to buy."
    )
    refit: bool = Field(
        True, description="Train once more on all sessions, hold-out included, before publishing."
    )
    fusion: bool = Field(
        True,
        description="Serve GRU4Rec fused with VMIS-kNN and sequential rules, else it alone.",
    )
    rerank: bool = Field(
        True,
        description="Re-rank the fusion's best items by trees where they prove better at it.",
    )
    rerank_predictions: int = Field(
        20_000,
        ge=1,
        description="Most predictions, the latest, that the trees are learned from.",
    )
    warm_start_epochs: int = Field(
        0,
        ge=0,
        description="Epochs of a training that begins from the champion's weights; 0: from chance.",
    )
    min_holdout_steps: int = Field(
        20, ge=1, description="Predictions the hold-out needs before a model may be judged."
    )

    @property
    def signal_weights(self) -> dict[str, float]:
        """Weight of a step's loss by the outcome of its item."""
        return {
            "view_item": self.view_weight, "add_to_cart": self.cart_weight,
            "purchase": self.purchase_weight,
        }  # fmt: skip
