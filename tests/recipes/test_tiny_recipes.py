"""Does every tiny recipe train, and does it train what its name says?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import engine
from engine.recipes import shipped_recipes
from engine.training import assemble
