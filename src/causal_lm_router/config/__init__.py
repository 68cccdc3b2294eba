"""The schema of every setting: types, documentation and checks.

YAML under `conf/` holds every value; the dataclasses here hold no defaults. `compose.py` puts the two together.
"""

from causal_lm_router.config.base_model import BaseModelConfig, BaseModelOrigin, LoraConfig
from causal_lm_router.config.baseline import BaselineConfig, BaselineMethod
from causal_lm_router.config.checks import DTYPES
from causal_lm_router.config.commands import BaselineRunConfig, EvaluateConfig, PrepareConfig, RouteConfig, TrainConfig
from causal_lm_router.config.data import ColumnsConfig, DataConfig, OnBadRow, SimulatedConfig, Source, TieBreak
from causal_lm_router.config.evaluation import EvaluationConfig, Split, TrackingConfig, WandbConfig, WandbMode
from causal_lm_router.config.routes import (
    Backend,
    DecodingConfig,
    DecodingMethod,
    InferenceConfig,
    Normalisation,
    ParsingConfig,
    generating_model,
)
from causal_lm_router.config.sweep import NOT_IDENTITY, OnFailure, SweepConfig
from causal_lm_router.config.teaching import CutSide, ObjectiveConfig, ObjectiveKind, PromptConfig, TargetConfig
from causal_lm_router.config.training import OptimConfig, Schedule, TrainerConfig

__all__ = [
    "DTYPES",
    "NOT_IDENTITY",
    "Backend",
    "BaseModelConfig",
    "BaseModelOrigin",
    "BaselineConfig",
    "BaselineMethod",
    "BaselineRunConfig",
    "ColumnsConfig",
    "CutSide",
    "DataConfig",
    "DecodingConfig",
    "DecodingMethod",
    "EvaluateConfig",
    "EvaluationConfig",
    "InferenceConfig",
    "LoraConfig",
    "Normalisation",
    "ObjectiveConfig",
    "ObjectiveKind",
    "OnBadRow",
    "OnFailure",
    "OptimConfig",
    "ParsingConfig",
    "PrepareConfig",
    "PromptConfig",
    "RouteConfig",
    "Schedule",
    "SimulatedConfig",
    "Source",
    "Split",
    "SweepConfig",
    "TargetConfig",
    "TieBreak",
    "TrackingConfig",
    "TrainConfig",
    "TrainerConfig",
    "WandbConfig",
    "WandbMode",
    "generating_model",
]
