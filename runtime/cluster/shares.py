"""What a task of a cluster may be given of its node, as the options of both commands say it."""

from __future__ import annotations

from patchline.runtime.errors import ConfigurationError


def check_gpus(gpus: float | None) -> None:
    """Refuse a number of GPUs that Ray gives to nobody.

    Args:
        gpus: of ``--ray-gpus``; ``None`` where it was not given.

    Raises:
        ConfigurationError: it is negative, no number, or more than one and no whole number.
    """
    if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())):
        raise ConfigurationError(
            f"--ray-gpus is {gpus:g}, expected a share of one GPU from 0 to 1, or whole ones"
        )


def gpus_of_engine(
    asked: float | None, needing_gpu: str | None, avoiding_gpu: str | None = None
) -> float:
    """The GPUs that an engine gets: one by default where it cannot be without.

    Args:
        asked: of ``--ray-gpus``; ``None`` where it was not given.
        needing_gpu: an option or a file that cannot be without; ``None`` where nothing is.
        avoiding_gpu: an option that leaves it idle; ``None`` where nothing does.

    Raises:
        ConfigurationError: no such number, none where one is needed, or one that would be idle.
    """
    check_gpus(asked)
    if asked and avoiding_gpu:
        raise ConfigurationError(
            f"{avoiding_gpu} uses no GPU, and --ray-gpus {asked:g} would keep one from others: "
            "leave one of them out"
        )
    if asked is None:
        return 1.0 if needing_gpu else 0.0
    if needing_gpu and asked == 0:
        raise ConfigurationError(
            f"{needing_gpu} needs a GPU, and --ray-gpus 0 gives none: leave one of them out"
        )
    return asked
