r"""Members that were taken into the catalogue, on the grounds of these figures."""

from functools import partial

from .catalogue import run

MEMBERS = {
    name: partial(run, solver=name)
    for name in ("foresight_1", "foresight_2", "moment_foresight_1", "moment_foresight_2")
}
