"""The session of a process that changes a run: the lock of the directory, the state in run.json and what ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from dltoolkit import data_object, display, files, interrupt, lazy, machine
from dltoolkit.errors import NonChiefDone, UserError, WorkerLost, machine_error
from dltoolkit.run_files import RunFiles

LAUNCHED_VARIABLE = "DLTOOLKIT_LAUNCHED"  # environment variable with the start of the command that launched the workers
RUN_FILE_VARIABLE = "DLTOOLKIT_RUN_FILE"  # environment variable that names the file to which the chief writes its run


class RunSession(RunFiles):
    """A run directory that a process trains or evaluates.

    Args:
        path: The directory.
        info: The contents of run.json.
        is_new: Whether this process has created the run.
        recipe_file: The recipe's file if it is none of the installed ones. It is never taken from run.json.
    """

    def __init__(self, path: Path, info: dict[str, Any], *, is_new: bool = False, recipe_file: Path | None = None):
        super().__init__(path, info)
        self._is_new, self._is_locked, self.recipe_file = is_new, False, recipe_file

    @contextlib.contextmanager
    def exclusive_lock(self) -> Iterator[None]:
        """Keep other processes from changing the run inside the block.

        Raises:
            UserError: If another process is using the run.
        """
        if self._is_locked or not self.writes:
            yield
            return
        with files.exclusive_lock(self.path):
            files.refuse_special_files(self.path)  # what is written now stays inside the directory
            files.remove_partial_files(self.path)
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Lock the run inside the block and record its state: running, then finished, interrupted or failed.

        A new run that fails before its training has begun is deleted. SIGINT, SIGTERM and SIGHUP raise
        :class:`dltoolkit.interrupt.Interrupted`. Workers other than the chief leave the block when training is done.
        Keras' dtype policy, which training sets, is restored at the end.

        Raises:
            UserError: If another process is using the run.
        """
        with self.exclusive_lock(), self._recorded_state(), _restored_dtype_policy(), lazy.quiet_tensorflow():
            yield self

    @contextlib.contextmanager
    def _recorded_state(self) -> Iterator[None]:
        start = time.monotonic()
        if self.info["state"] == "running":  # the process that left this state was killed
            self.info["state"] = "interrupted"
        if self.writes and (file := os.environ.get(RUN_FILE_VARIABLE)):
            Path(file).write_text(self.resume_command)
        if self.recipe_file:
            self.info["recipe_file"] = str(self.recipe_file)
        initial_state = self.info["state"]
        resumed, self._is_new = not self._is_new, False

        def record(state: str, **fields: Any) -> None:
            before = self.info.get("time", {}).get("total_seconds", 0.0) if resumed else 0.0
            seconds = {"total_seconds": round(before + time.monotonic() - start, 2)}
            self.update(state=state, time=seconds, peak_memory_mb=machine.peak_memory_mb(), **fields)

        try:
            with interrupt.signals_raise():
                yield
                self.info.pop("error", None)
                record("finished", files=self.digests())
        except NonChiefDone:
            pass
        except (KeyboardInterrupt, Exception) as error:
            interrupted = isinstance(error, (KeyboardInterrupt, WorkerLost))
            if not self.writes:
                pass
            elif self.info["state"] == "starting" and not resumed:
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                error = self._with_resume_command(error)
                if not (resumed and self.info["state"] == initial_state):  # if training has not begun, nothing changes
                    with contextlib.suppress(OSError, UserError):  # keep the first error
                        record("interrupted" if interrupted else "failed", error=None if interrupted else str(error))
            raise error

    def _with_resume_command(self, error: BaseException) -> BaseException:
        """Return an error that names the command that resumes the run if a signal or the machine has ended it."""
        if isinstance(error, KeyboardInterrupt):
            error.resume_command = self.resume_command
        elif isinstance(error, files.WriteError):
            error.args = (f"{error} Afterwards, resume with: {self.resume_command}",)
        elif sentence := machine_error(error):
            return UserError(f"{sentence} Afterwards, resume with: {self.resume_command}")
        return error

    def chief_only(self) -> None:
        """Leave the :meth:`session` on all workers except the chief, which does the rest alone."""
        if not self.writes:
            raise NonChiefDone

    @property
    def resume_command(self) -> str:
        """The command that resumes the run, or the call if a Python program held its data."""
        if str(self.info["config"].get("data")).startswith(data_object.SCHEME):
            module = ", recipe=…" if self.recipe_file else ""
            run = f"dltoolkit.load({str(self.path)!r}{module})" if module else repr(str(self.path))
            return f"dltoolkit.resume({run}, data=…)"
        return self.command("resume", program=os.environ.get(LAUNCHED_VARIABLE, "dltoolkit"))

    def command(self, verb: str, *words: str, program: str = "dltoolkit") -> str:
        """Return the command line of a verb for this run, with ``--recipe`` if the recipe is a file of your own.

        Args:
            verb: The verb, such as ``predict``.
            words: Words that follow the run, as the user shall see them.
            program: The command line up to the verb.
        """
        recipe_file = ["--recipe", self.recipe_file] if self.recipe_file else []
        return " ".join([program, display.command(verb, self.path, *recipe_file), *words])


@contextlib.contextmanager
def _restored_dtype_policy() -> Iterator[None]:
    policy = sys.modules["keras"].config.dtype_policy() if "keras" in sys.modules else None
    try:
        yield
    finally:
        if "keras" in sys.modules:  # not imported here, because a run may fail before anything needs it
            keras = sys.modules["keras"]
            keras.config.set_dtype_policy(policy or keras.config.floatx())
