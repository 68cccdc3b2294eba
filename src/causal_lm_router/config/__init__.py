"""The schema of every setting: types, documentation and checks.

YAML under `conf/` holds every value; the dataclasses here hold no defaults. `compose.py` puts the two together.
"""

from causal_lm_router.config.baselines import BaselineConfig, BaselineMethod
from causal_lm_router.config.checks import DTYPES
from causal_lm_router.config.data import ColumnsConfig, DataConfig, OnBadRow, SimulatedConfig, Source, TieBreak
from causal_lm_router.config.evaluation import EvaluationConfig, Split
from causal_lm_router.config.generation import (
    Backend,
    DecodingConfig,
    DecodingMethod,
    InferenceConfig,
    Normalisation,
    ParsingConfig,
    generating_model,
)
from causal_lm_router.config.models import BaseModelConfig, BaseModelOrigin, LoraConfig
from causal_lm_router.config.prompting import CutSide, PromptConfig, TargetConfig
from causal_lm_router.config.runs import BaselineRunConfig, EvaluateConfig, PrepareConfig, RouteConfig, TrainConfig
from causal_lm_router.config.sweeps import NOT_IDENTITY, OnFailure, SweepConfig
from causal_lm_router.config.tracking import TrackingConfig, WandbConfig, WandbMode
from causal_lm_router.config.training import ObjectiveConfig, ObjectiveKind, OptimConfig, Schedule, TrainerConfig

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
