"""What readers touch: explorers that compute in the page, live in Jupyter and with no kernel in the book."""

from .ablations import Ablations
from .accuracy_size import AccuracySize
from .alternation import Alternation
from .base import Explorer, strip_widget_state
from .conv_channels import ConvChannels
from .digit_neurons import DigitNeurons
from .gates import Gates
from .pixel_mask import PixelMask
from .residual_compaction import ResidualCompaction
from .scale_neurons import ScaleNeurons
from .switcher_view import SwitcherView

__all__ = [
    "Ablations", "AccuracySize", "Alternation", "ConvChannels", "DigitNeurons", "Explorer", "Gates", "PixelMask", "ResidualCompaction",
    "ScaleNeurons", "SwitcherView", "strip_widget_state",
]  # fmt: skip
