"""The methods by the names that recipes use."""

from graddrop_tf.methods.graddrop.layer import GradDrop, RandomGradDrop
from graddrop_tf.methods.gradnorm import GradNorm
from graddrop_tf.methods.mgda import MGDA
from graddrop_tf.methods.pcgrad import PCGrad

# A new method is one file in this folder and one line here.
METHODS = {
    "graddrop": GradDrop,
    "random_graddrop": RandomGradDrop,
    "pcgrad": PCGrad,
    "mgda": MGDA,
    "gradnorm": GradNorm,
}
