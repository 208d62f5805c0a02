"""The methods by the names that recipes use."""

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
from graddrop_tf.methods.graddrop.layer import GradDrop, RandomGradDrop
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

# A new method is one file in this folder and one line here.
METHODS = {
    "graddrop": GradDrop,
    "random_graddrop": RandomGradDrop,
    "pcgrad": PCGrad,
    "mgda": MGDA,
    "upgrad": UPGrad,
    "dualproj": DualProj,
    "cagrad": CAGrad,
    "nash_mtl": NashMTL,
    "fairgrad": FairGrad,
    "aligned_mtl": AlignedMTL,
    "imtl_g": IMTLG,
    "config": ConFIG,
    "equal_norm": EqualNorm,
    "pcd": PCD,
    "gradient_dropout": GradientDropout,
    "gradnorm": GradNorm,
    "uncertainty": Uncertainty,
    "imtl_l": IMTLL,
    "log_sum": LogSum,
    "geometric_mean": GeometricMean,
    "stch": STCH,
    "famo": FAMO,
    "dwa": DWA,
    "rlw": RandomWeighting,
    "constant": Constant,
}
