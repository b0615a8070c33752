"""How large must an L2 penalty be to make a neural network's training objective convex?"""

from .data import Dataset
from .model import MLP
from .objective import Objective
from .regions import Ball, Box
