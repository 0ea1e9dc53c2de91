"""Options of the commands, a dataclass each; light to import, so that ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from device_placement.agents.options import HIDDEN, POSITIONAL, OptionGroups
from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.agents.runs.config import SearchConfig
from device_placement.envs.errors import DevicePlacementError, check_seed
from device_placement.envs.measuring.config import MeasureConfig


@dataclass(frozen=True)
class DevicesConfig:
    """Options of `device-placement devices`: none."""


@dataclass(frozen=True)
class InspectConfig:
    """Options of `device-placement inspect`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("model",)}

    model: str
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side."""
    devices: str = "auto"
    """Devices, comma-separated, each NAME or NAME:KEY=VALUE;KEY=VALUE; auto: every one found."""
    coarsening: str = "fusion"
    """How to group ops: fusion, colocation or none."""
    max_groups: int | None = None
    """Merge groups until at most this many remain."""
    input_shapes: str = ""
    """Static shapes for a model with dynamic ones: NAME=1,3,224,224;NAME2=..."""


@dataclass(frozen=True)
class DoctorConfig:
    """Options of `device-placement doctor`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("model",)}

    devices: str = "auto"
    """Devices, comma-separated; the noise of the first two is measured."""
    model: str = "resnet50"
    """Model to run while measuring the noise."""
    inputs: str = ""
    """Values of the inputs: an .npz file with an array NAME for each, or with 0/NAME, 1/NAME, ...
    for several samples; default: invented."""
    seconds: float = 10.0
    """How long to measure the noise."""


@dataclass(frozen=True, kw_only=True)
class ProfileConfig(MeasureConfig):
    """Options of `device-placement profile`.

    Each placement is timed to the end, once, so tolerance_growth, give_up_factor and confirmations
    have no effect.
    """

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("model",),
        "grouping": ("coarsening", "max_groups", "input_shapes"),
        "measuring": ("inputs",),
    }

    model: str
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side."""
    out: str
    """File to write the profile to; an existing one is replaced."""
    devices: str = "auto"
    """Devices, comma-separated, each NAME or NAME:KEY=VALUE;KEY=VALUE; auto: every one found. The
    first is the reference."""
    placements: int = 60
    """Random placements to measure; a quarter of them test the fitted profile."""
    seed: int = 0
    """Random seed of the placements."""
    coarsening: str = "fusion"
    """How to group ops: fusion, colocation or none."""
    max_groups: int | None = None
    """Merge groups until at most this many remain."""
    input_shapes: str = ""
    """Static shapes for a model with dynamic ones: NAME=1,3,224,224;NAME2=..."""
    inputs: str = ""
    """Values of the inputs: an .npz file with an array NAME for each, or with 0/NAME, 1/NAME, ...
    for several samples; default: invented."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class ValidateConfig(MeasureConfig):
    """Options of `device-placement validate`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("placement", "model"),
        "measuring": ("inputs",),
    }

    executor: str = "auto"
    """hetero, dataflow, or auto: the one that the placement was searched with."""
    placement: str
    """File written by a search or by Placement.save(); or affinities of your own, a JSON file with
    {friendly name of an op: device}. The model may come first."""
    model: str
    """Model that was placed: a bundled one or the path of a model file."""
    devices: str = ""
    """The placement's devices, repeated; needed only where they have properties that a file may
    not set, such as CACHE_DIR. For affinities: those that have properties."""
    input_shapes: str = ""
    """Static shapes for a model with dynamic ones: NAME=1,3,224,224;NAME2=..."""
    inputs: str = ""
    """Values of the inputs: an .npz file with an array NAME for each, or with 0/NAME, 1/NAME, ...
    for several samples; default: invented."""


@dataclass(frozen=True)
class TrainConfig(SearchConfig):
    """Options of `device-placement train`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        "training": (
            *("override", "formulation", "horizon", "reward", "costs", "repair"),
            *("checkpoint_s", "torch_device"),
        ),
        "comparison": ("samples",),
    }

    model: str = "resnet50"
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side; for the simulator also generated:SEED, a
    random problem. With commas between them, models share the budget; each episode draws one of
    them."""
    preset: str = "ppo"
    """ppo, a2c, maskable_ppo, nodewise_ppo, nodewise_a2c, construct_ppo, hsdag, hsdag_ppo, placeto,
    gdp or rnn."""
    override: str = ""
    """Changes to the preset: learning_rate=1e-3;extractor.hidden=128;..."""
    formulation: str | None = None
    """How an episode builds a placement: assign, construct or refine; default: the preset's."""
    horizon: int | None = None
    """Steps per episode in assign and refine; default: the preset's."""
    reward: str | None = None
    """negative_ms, improvement_ms, log_speedup, log_improvement, relative, inverse,
    speedup or negative_sqrt; default: the preset's."""
    costs: str | None = None
    """Costs that the agent sees: none, or profile for those of the simulator or of --profile;
    default: the preset's."""
    repair: str = "none"
    """How a simulated placement that breaks --constraints or memory limits is repaired before it is
    evaluated: none, fix, sample or nearest."""
    checkpoint_s: float = 10.0
    """Shortest time between two checkpoints, in seconds; they are written after an update."""
    torch_device: str = "cpu"
    """Where to run the policy network: cpu, cuda, ..."""
    samples: int = 0
    """Placements to sample from the trained policy, in addition to its greedy one; outside the
    budget."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models to train on; an existing path that contains a comma is one model."""
        if Path(self.model).exists():
            return (self.model,)
        names = tuple(filter(None, (part.strip() for part in self.model.split(","))))
        return names or (self.model,)

    @property
    def input_files(self) -> tuple[str, ...]:
        """The file of each model: several models take several, separated by commas.

        Raises:
            DevicePlacementError: when there are more or fewer files than models.
        """
        number = len(self.models)
        if number == 1 or not self.inputs:
            return (self.inputs,) * number
        files = tuple(part.strip() for part in self.inputs.split(","))
        if len(files) != number:
            raise DevicePlacementError(
                f"Got inputs={self.inputs!r} for {number} models; give one file for each, "
                "separated by commas (empty: invented), or none."
            )
        return files


@dataclass(frozen=True, kw_only=True)
class PlaceConfig(SearchConfig):
    """Options of `device-placement place`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {HIDDEN: ("budget", "patience", "resume")}

    model: str = "resnet50"
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side; for the simulator also generated:SEED, a
    random problem."""
    policy: str = ""
    """The policy.zip of a training run, or weights by `device-placement pretrain`; default: the
    pretrained policy in the package."""
    devices: str = ""
    """Devices, comma-separated, as for train; default: those of a policy.zip, otherwise auto."""
    samples: int | None = None
    """Placements to sample from the policy, in addition to its greedy one; default: 16 from a
    policy.zip, otherwise none."""
    finetune: int = 0
    """Further placements to fine-tune the policy on."""
    torch_device: str = "cpu"
    """Where to run the policy network: cpu, cuda, ..."""
    budget: int = 0
    patience: int | None = None
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(PretrainOptions):
    """Options of `device-placement pretrain`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        "problems": ("problems", "samples", "groups", "distinct", "hidden_moves"),
        "learning": ("learning_rate", "imitation", "entropy", "teacher_rounds"),
        "network": ("hidden", "layers", "without"),
        "validation": ("validation", "validate_every"),
    }

    out: str
    """File to write the weights to, NAME.safetensors; the folder NAME_training beside it holds the
    checkpoint and the logs for TensorBoard."""
    jobs: int = 0
    """Processes, at most two; the weights do not depend on it. 0: as many as there are cores."""
    checkpoint_s: float = 30.0
    """Shortest time between two checkpoints, in seconds."""
    resume: bool = False
    """Resume the training of --out, whose settings are repeated."""


@dataclass(frozen=True)
class TlsOptions:
    """Options of the processes of a cluster for TLS."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {"TLS": ("tls_ca_file", "tls_cert", "tls_key")}

    tls_ca_file: str = ""
    """File of the certificate authority (PEM); with it, others must show a certificate by it."""
    tls_cert: str = ""
    """File of the own certificate (PEM)."""
    tls_key: str = ""
    """File of the own private key (PEM)."""


@dataclass(frozen=True)
class ClusterConfig(TlsOptions):
    """Options of `device-placement cluster`."""

    host: str = "127.0.0.1"
    """Address to listen at. Whoever reaches it can run code here and on all workers: leave it, and
    use an ssh tunnel, or use TLS."""
    port: int = 8786
    """Port to listen at; 0: any that is free."""
    dashboard: str = ""
    """HOST:PORT of dask's dashboard, which needs bokeh; default: none."""
    lost_after_s: float = 300.0
    """Seconds without a sign of life after which a worker counts as lost."""
    scheduler_file: str = ""
    """File to write the address to, for --on and for workers."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(TlsOptions):
    """Options of `device-placement worker`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("address",)}

    address: str
    """Address of the scheduler: HOST:PORT, any that dask takes, or a scheduler file."""
    name: str = ""
    """Name of this target, for --target; default: that of the machine."""
    host: str = ""
    """Own address, by which the scheduler reaches this worker; default: 127.0.0.1, if the scheduler
    is on this machine or behind an ssh tunnel."""
    port: int = 0
    """Own port; 0: any that is free."""
    jobs: int = 1
    """Runs of a benchmark at a time; measurements take turns."""
    clock: bool = True
    """Measure here; --no-clock: only run what is simulated."""


@dataclass(frozen=True)
class SearchCommand(SearchConfig):
    """Options of `device-placement search`."""

    placer: str = "local_search"
    """With any evaluator: single, automatic, random, local_search, annealing, cross_entropy,
    genetic, posterior_sampling or pretrained. With the simulator only: heft, greedy, lookahead,
    m_etf, stages, and the exact contiguous, min_cut and cp_sat."""
    start: str = ""
    """Where local_search and posterior_sampling start: single (the default), or pretrained, with
    placements of the pretrained policy."""
    time_limit: float | None = None
    """Time limit in seconds for a placer that has one, such as cp_sat; default: its own."""


@dataclass(frozen=True)
class RandomConfig(SearchConfig):
    """Options of `device-placement random`: those of every search."""
