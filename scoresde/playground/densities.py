r"""Data whose noisy densities are known, and a planted error, written as in a script, which the page shows."""

import base64
import math

import numpy as np
import torch
from torch import Tensor

import scoresde as ss

SIDE = 24  # squares of a drawing along each side


def pair(process: ss.Process) -> ss.MixtureOracle:
    r"""A narrow and a wide component."""
    means = torch.tensor([[-1.0, 0.3], [0.8, -0.3]])
    return ss.MixtureOracle(means, torch.tensor([0.15, 0.4]), process=process)


def ring(process: ss.Process) -> ss.MixtureOracle:
    r"""Eight components on a circle."""
    angles = torch.arange(8) * math.pi / 4
    means = 1.2 * torch.stack([angles.cos(), angles.sin()], 1)
    return ss.MixtureOracle(means, 0.15, process=process)


def moons(process: ss.Process) -> ss.KernelOracle:
    r"""Two half circles, as classes 0 and 1."""
    angles = torch.linspace(0, math.pi, 100)
    upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], 1)
    labels = torch.arange(200) // 100
    return ss.KernelOracle(torch.cat([upper, -upper]), 0.1, process=process, labels=labels)


def drawn(process: ss.Process, ink: str) -> ss.KernelOracle:
    r"""The marked squares of a drawing with 24 x 24 squares, which are the bits of `ink` in base64."""
    bits = np.unpackbits(np.frombuffer(base64.urlsafe_b64decode(ink), np.uint8))
    down, across = torch.from_numpy(bits).reshape(24, 24).nonzero().T
    points = torch.stack([across - 11.5, 11.5 - down], 1) / 8
    return ss.KernelOracle(points, 0.07, process=process)


def digits(process: ss.Process) -> ss.ScoreModel:
    r"""The embedded model of 8 x 8 digits, at the same noise levels of another process."""
    return ss.Rescheduled(ss.load("digits"), process)


class Planted(ss.ScoreModel):
    r"""A model with the error e s^2 / (1 + s^2) sin(3 X / sqrt(1 + s^2)); s = sigma / alpha, X = x / alpha."""

    def __init__(self, exact: ss.ScoreModel, error: float) -> None:
        super().__init__()
        self.resemble(exact)
        self.exact, self.error, self.fingerprint = exact, error, None

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        scales = self.process.scales(t)
        alpha, sigma = (s.to(x).reshape(-1, *(1 for _ in x.shape[1:])) for s in scales)
        square = (sigma / alpha) ** 2
        wrong = square / (1 + square) * torch.sin(3 * x / (alpha * (1 + square).sqrt()))
        return self.exact.denoise(x, t, **condition) + self.error * wrong
