"""Multi-loss training for Keras: Gradient Sign Dropout and its peers."""

# isort: off
from graddrop_tf import backend  # noqa: F401, before what needs it

# isort: on
from graddrop_tf import methods, parsing, random
from graddrop_tf._version import __version__
from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner, RandomCombiner
from graddrop_tf.bases.draws import RandomDraws
from graddrop_tf.bases.gramian import GramianCombiner
from graddrop_tf.bases.joint import JointCombiner
from graddrop_tf.bases.numbers import Number, PerLossNumber
from graddrop_tf.bases.streaming import Streaming
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.combination import combine
from graddrop_tf.conversion import insert
from graddrop_tf.fitting import synchronize_optimizer, train_on_replicas
from graddrop_tf.inference import inference_model
from graddrop_tf.methods import METHODS
from graddrop_tf.methods.aligned_mtl import AlignedMTL
from graddrop_tf.methods.cagrad import CAGrad
from graddrop_tf.methods.config import ConFIG
from graddrop_tf.methods.constant import Constant
from graddrop_tf.methods.dualproj import DualProj
from graddrop_tf.methods.dwa import DWA
from graddrop_tf.methods.equal_norm import EqualNorm
from graddrop_tf.methods.fairgrad import FairGrad
from graddrop_tf.methods.famo import FAMO
from graddrop_tf.methods.geometric_mean import GeometricMean
from graddrop_tf.methods.graddrop.function import graddrop
from graddrop_tf.methods.graddrop.layer import GradDrop, RandomGradDrop
from graddrop_tf.methods.graddrop.purity import sign_purity
from graddrop_tf.methods.gradient_dropout import GradientDropout
from graddrop_tf.methods.gradnorm import GradNorm
from graddrop_tf.methods.imtl_g import IMTLG
from graddrop_tf.methods.imtl_l import IMTLL
from graddrop_tf.methods.log_sum import LogSum
from graddrop_tf.methods.mgda import MGDA
from graddrop_tf.methods.nash_mtl import NashMTL
from graddrop_tf.methods.pcd import PCD
from graddrop_tf.methods.pcgrad import PCGrad
from graddrop_tf.methods.rlw import RandomWeighting
from graddrop_tf.methods.stch import STCH
from graddrop_tf.methods.uncertainty import Uncertainty
from graddrop_tf.methods.upgrad import UPGrad
from graddrop_tf.model import MultiLossModel
from graddrop_tf.monitor.callback import GradientMonitor
from graddrop_tf.recipe import Recipe
from graddrop_tf.step.clipping import clip_after_reduction
from graddrop_tf.step.custom_loop import compute_gradients
from graddrop_tf.step.state import RecipeState
from graddrop_tf.step.vector_loss import VectorLoss

__all__ = [
    "DWA",
    "FAMO",
    "IMTLG",
    "IMTLL",
    "METHODS",
    "MGDA",
    "PCD",
    "STCH",
    "AlignedMTL",
    "CAGrad",
    "Chain",
    "Combiner",
    "ConFIG",
    "Constant",
    "DualProj",
    "EqualNorm",
    "FairGrad",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradientDropout",
    "GradientMonitor",
    "GramianCombiner",
    "JointCombiner",
    "LogSum",
    "MultiLossModel",
    "NashMTL",
    "Number",
    "PCGrad",
    "PerLossNumber",
    "RandomCombiner",
    "RandomDraws",
    "RandomGradDrop",
    "RandomWeighting",
    "Recipe",
    "RecipeState",
    "Streaming",
    "UPGrad",
    "Uncertainty",
    "VectorLoss",
    "Weighting",
    "__version__",
    "clip_after_reduction",
    "combine",
    "compute_gradients",
    "graddrop",
    "inference_model",
    "insert",
    "methods",
    "parsing",
    "random",
    "sign_purity",
    "synchronize_optimizer",
    "train_on_replicas",
]
