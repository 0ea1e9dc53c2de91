"""Presets that re-implement published systems: HSDAG, Placeto, GDP and Mirhoseini et al. 2017."""

from __future__ import annotations

from collections.abc import Mapping

from device_placement.agents.presets.off_the_shelf import BANDIT
from device_placement.agents.presets.preset import Options, Preset, Settings, by_formulation
from device_placement.envs.graph.features import FEATURE_BLOCKS

_HSDAG_FEATURES = (
    "op_type",
    "output_shape",
    "in_degree",
    "out_degree",
    "fractal_dimension",
    "position_sinusoid",
)
_HSDAG_NETWORK: Options = {
    "hidden": 128,
    "layers": 2,
    "conv": "gcn",
    "direction": "undirected",
}
_EVERY_FEATURE = tuple(FEATURE_BLOCKS)

PUBLISHED: Mapping[str, Preset] = {
    "hsdag": Preset(
        "learned grouping by graph parsing, REINFORCE, as published",
        "HSDAG: Duan et al., NeurIPS 2024, arXiv 2405.14185",
        "The nodes are the groups of the chosen coarsening. Embeddings are centred and normalised "
        "before scoring and placing, as they grow, and become alike, from step to step. Scores "
        "start as the similarity of the ends; the paper does not specify them. The paper's two "
        "parsing layers are two passes; the released code parses until nothing merges, so that a "
        "connected graph is one group. Gamma is that of the released code.",
        "reinforce",
        "parsing",
        by_formulation(
            Settings(
                "assign",
                reward="inverse",
                algorithm={"learning_rate": 1e-4, "n_steps": 20, "n_epochs": 4, "gamma": 0.95},
                extractor={**_HSDAG_NETWORK, "dropout": 0.2, "similarity": 0.0, "passes": 2},
                features=_HSDAG_FEATURES,
            )
        ),
    ),
    "hsdag_ppo": Preset(
        "the same grouping, trained by PPO, on directed edges",
        "HSDAG: Duan et al., NeurIPS 2024, arXiv 2405.14185; PPO: arXiv 1707.06347",
        "PPO with normalised advantages and a logarithmic reward instead of REINFORCE; all "
        "features; messages along and against the edges; a node without similar neighbours stays "
        "alone, as nearly all do at first; groups without cycles between them; a fixed state, as "
        "no proposal changes the value of the next one.",
        "ppo",
        "parsing",
        by_formulation(
            Settings(
                "assign",
                reward="log_speedup",
                algorithm={
                    **BANDIT,
                    "learning_rate": 1e-3,
                    "n_steps": 20,
                    "batch_size": 20,
                    "n_epochs": 4,
                    "clip_range": 0.3,
                },
                extractor={
                    "hidden": 64,
                    "layers": 3,
                    "similarity": 0.7,
                    "min_score": 0.5,
                    "convex": True,
                    "moves_state": False,
                },
                features=_EVERY_FEATURE,
                copies=20,
            )
        ),
    ),
    "placeto": Preset(
        "one group per step, each visited once per episode, rewarded by the improvement",
        "Placeto: Addanki et al., NeurIPS 2019, arXiv 1906.08879",
        "PPO with a critic on eight episodes, instead of REINFORCE with a baseline per step on "
        "ten; an entropy bonus, as moving one group of a chain alone never pays; improvements are "
        "logarithms, later ones discounted; memory limits make a placement invalid instead of "
        "costing a penalty.",
        "ppo",
        "nodewise",
        by_formulation(
            Settings(
                "refine",
                reward="log_improvement",
                algorithm={
                    "gamma": 0.97,
                    "gae_lambda": 0.95,
                    "vf_coef": 0.5,
                    "ent_coef": 0.07,
                    "learning_rate": 1e-3,
                    "n_epochs": 6,
                    "clip_range": 0.2,
                },
                extractor={"hidden": 32, "layers": 2, "state_layers": 2, "sweeps": True},
                episodes={"n_steps": 8, "batch_size": 4},
                features=_EVERY_FEATURE,
                horizon=None,
                copies=8,
            )
        ),
    ),
    "gdp": Preset(
        "GraphSAGE and attention over all groups, the whole placement in one shot",
        "GDP: Zhou et al. 2019, arXiv 1910.01578",
        "Attention is that of a transformer without recurrence over segments; no superposition "
        "for several graphs; an invalid placement gets the environment's penalty.",
        "ppo",
        "nodewise",
        by_formulation(
            Settings(
                "assign",
                reward="negative_sqrt",
                algorithm={
                    **BANDIT,
                    "learning_rate": 1e-3,
                    "n_steps": 32,
                    "batch_size": 32,
                    "n_epochs": 8,
                    "clip_range": 0.2,
                },
                extractor={"hidden": 64, "layers": 2, "conv": "sage", "attention": 2},
                features=_EVERY_FEATURE,
                copies=16,
            )
        ),
    ),
    "rnn": Preset(
        "an LSTM reads the groups in topological order, another one with attention places them",
        "Mirhoseini et al., ICML 2017, arXiv 1706.04972",
        "Adjacency enters by the mean features of a group's neighbours; multiplicative attention; "
        "rewards are divided by their standard deviation; an entropy bonus, without which it soon "
        "ends at a single device.",
        "reinforce",
        "rnn",
        by_formulation(
            Settings(
                "assign",
                reward="negative_sqrt",
                algorithm={
                    "learning_rate": 1e-3,
                    "n_steps": 16,
                    "gamma": 1.0,
                    "baseline": "moving_average",
                    "normalize_advantage": True,
                    "ent_coef": 0.3,
                },
                extractor={"hidden": 64},
                features=_EVERY_FEATURE,
                copies=16,
            )
        ),
    ),
}
"""Name -> preset."""
