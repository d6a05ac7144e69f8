"""The parts of an archive on a Ray cluster: Ray Data, an engine per actor, a part per block.

Each actor writes its parts itself, so that what is done stays done when it dies. Ray gives the part
of a dead worker to another. Where it gives one up all the same, the parts that are missing go into
another round, over the nodes that are there then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from patchline.runtime import errors
from patchline.runtime.archive.attempts import begin_attempt, forget_attempts
from patchline.runtime.archive.part_file import PartResult
from patchline.runtime.archive.parts import Part
from patchline.runtime.archive.room_watch import while_there_is_room
from patchline.runtime.archive.scorer import ScoreJob, Scorer
from patchline.runtime.cluster.connect import Cluster
from patchline.runtime.errors import ClusterError, PatchlineError
from patchline.runtime.progress import Advance

MOST_IDLE_ROUNDS = 3
"""So many rounds in a row without one part that was done end the call."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What each engine gets of a cluster.

    Attributes:
        workers: engines at most; ``None`` for as many as there is room for.
        cpus: cores of each, at least 1.
        gpus: GPUs of each; a share of one below 1.
    """

    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def room(self, cluster: Cluster) -> int:
        """How many engines the nodes that are alive have room for, at most ``workers``.

        Raises:
            ClusterError: for none.
        """
        nodes = cluster.nodes()
        room = sum(self._fits(node.cpus, node.gpus) for node in nodes)
        if room == 0:
            largest = "; ".join(
                f"{node.address} {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes
            )
            raise ClusterError(
                f"no node of the cluster has room for an engine of {self.cpus} CPUs and "
                f"{self.gpus:g} GPUs ({largest or 'none is alive'}). Lower --ray-cpus or --ray-gpus"
            )
        return room if self.workers is None else min(room, self.workers)

    def _fits(self, cpus: float, gpus: float) -> int:
        by_cpus = int(cpus // self.cpus)
        return min(by_cpus, int(gpus / self.gpus + 1e-9)) if self.gpus else by_cpus


class RayParts:
    """Scores parts on a cluster; a :data:`~patchline.runtime.archive.run.ScoreParts`.

    Args:
        cluster: that this process is connected to.
        share: of each engine.
    """

    def __init__(self, cluster: Cluster, share: Share) -> None:
        self._cluster, self._share = cluster, share

    def __call__(
        self, job: ScoreJob, parts: Sequence[Part], advance: Advance
    ) -> Iterator[PartResult]:
        """Score parts and give each one's result as it is done, in any order.

        Raises:
            ClusterError: no node has room, at first or for minutes, or workers die and nothing is
                done any more.
            PatchlineError: as for :meth:`~patchline.runtime.archive.scorer.Scorer.score`.
        """
        left = {part.number: part for part in parts}
        given_up: list[ClusterError] = []
        pictures = idle_rounds = 0
        while len(left) > len(given_up):
            before, reason, given_up = len(left), "workers died", []
            try:
                for result in self._round(job, list(left.values())):
                    if isinstance(result, ClusterError):  # of one part: the others go on
                        given_up.append(result)
                        continue
                    if left.pop(result.number, None) is None:
                        continue  # scored twice: its first worker died after it was written
                    pictures += result.pictures
                    advance(pictures)
                    yield result
            except self._cluster.ray.exceptions.RayError as error:
                reason = _reason(error)
            idle_rounds = 0 if len(left) < before else idle_rounds + 1
            if idle_rounds >= MOST_IDLE_ROUNDS:
                raise ClusterError(_stuck(len(left), reason))
        if given_up:
            raise ClusterError("; ".join(map(str, given_up)))

    def _round(self, job: ScoreJob, parts: Sequence[Part]) -> Iterator[PartResult | ClusterError]:
        import ray.data
        from ray.data import ActorPoolStrategy

        _quiet(ray.data.DataContext.get_current())
        workers = min(self._share.room(self._cluster), len(parts))
        items = [{"part": _to_text(part)} for part in parts]
        scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            ActorScorer,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=self._share.cpus,
            num_gpus=self._share.gpus,
        )
        room = functools.partial(self._share.room, self._cluster)
        for row in while_there_is_room(scored.iter_rows(), room):
            yield _from_text(row["result"])


class ActorScorer:
    """What an actor runs: an engine that scores one part at a time.

    Args:
        job: what to score by.
    """

    def __init__(self, job: ScoreJob) -> None:
        self._job, self._scorer = job, Scorer(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Score the parts of a batch (one); an error is a result like any other."""
        return {"result": [self._score(str(text)) for text in batch["part"]]}

    def _score(self, text: str) -> str:
        part, out = json.loads(text), self._job.out
        try:
            begin_attempt(out, part["number"])
            result = self._scorer.score(part["number"], part["paths"])
            forget_attempts(out, part["number"])
        except PatchlineError as error:
            return json.dumps({"error": type(error).__name__, "sentence": str(error)})
        except Exception as error:  # of one part: Ray would drop it, and call its worker dead
            with contextlib.suppress(OSError):  # it did not die
                forget_attempts(out, part["number"])
            sentence = f"part {part['number']}: {type(error).__name__}: {_line(error)}"
            return json.dumps({"error": ClusterError.__name__, "sentence": sentence})
        return json.dumps(dataclasses.asdict(result))


def _to_text(part: Part) -> str:
    paths = [picture.path for picture in part.pictures]
    return json.dumps({"number": part.number, "paths": paths})


def _from_text(text: str) -> PartResult | ClusterError:
    found = json.loads(text)
    if "error" not in found:
        return PartResult(**{**found, "errors": tuple(found["errors"])})
    error = getattr(errors, found["error"])(found["sentence"])
    if isinstance(error, ClusterError):
        return error
    raise error


def _quiet(context: Any) -> None:
    # Our own bar counts pictures, over all rounds; what Ray Data has to say goes to its log files.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The others of a round go on when one worker dies.
    context.max_errored_blocks = -1
    for handler in logging.getLogger("ray.data").handlers:
        # Its console's only: another's handler may be one that hears the whole process.
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL + 1)


def _stuck(missing: int, reason: str) -> str:
    return (
        f"{MOST_IDLE_ROUNDS} attempts in a row ended without one part scored, and {missing} are "
        f"missing: {reason}. Look at memory and logs of the nodes; the same call goes on from here"
    )


def _reason(error: Exception) -> str:
    """What an error of Ray's says; where it only passes one on, what that one says."""
    cause = getattr(error, "cause", None)
    return _line(error) if cause is None else f"{type(cause).__name__}: {_line(cause)}"


def _line(error: BaseException) -> str:
    """The first line, which is a sentence where there are several."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
