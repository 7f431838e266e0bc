"""Kill small runs, fill their disk, damage their checkpoints and limit their machine, and compare the results.

    python benchmarks/faults.py --kills 200
    python benchmarks/faults.py --kills 6 --recipe image-classifier

Each run is a small one of a recipe. After each fault, `dltoolkit resume` continues the run, until it ends. Then its
network, history, metrics and all other files are compared with those of an uninterrupted run. Before that, a run
trains under each condition of `fault_conditions.py`: it must end like the others, or with one sentence, and resume.
"""

import collections
import contextlib
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import fault_conditions
import machine
from fault_conditions import Condition
from small_runs import Case, differences, small_runs

DISK_MB = 96  # size of the disk that becomes full: a few runs fit on it
MAX_FAULTS = 10  # number of faults after which a run is left to end
MAX_PROBLEMS = 20  # number of problems after which no new run starts
TIMEOUT = 1800  # seconds after which a run is considered to hang
KILLS = ("killed at a random time", "killed with a file half written", "killed after a file was renamed")
HANGUP, DISK_FAULTS = "terminal closed (SIGHUP)", ("disk full", "disk read-only")
FAULTS = dict(zip((*KILLS, HANGUP, *DISK_FAULTS), (45, 20, 20, 5, 5, 5), strict=True))  # percentages
EXIT_CODES = {HANGUP: 128 + signal.SIGHUP, **dict.fromkeys(DISK_FAULTS, 2)}
WORKERS = {"a worker of two killed": signal.SIGKILL, "a worker of two frozen": signal.SIGSTOP}
FROZEN = 60  # seconds after which a frozen worker continues if the others have not ended
FLOAT_ERROR = 1e-5  # tolerance between two training runs of several workers
DAMAGED = "checkpoint damaged"
DAMAGE_PROBABILITY = 0.2  # probability that the newest checkpoint is damaged after a fault
INSIDE = "DLTOOLKIT_FAULTS_INSIDE"  # environment variable that is set in a process that may mount disks

# A process that runs `dltoolkit`, counts the files that it writes, and kills itself at the file with a given number
CHILD = """
import os, signal, sys
number, mode, count_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
written, replace = 0, os.replace
def counted_replace(source, target):
    global written
    written += 1
    with open(count_file, "w") as file:
        file.write(str(written))
    if written == number and mode == "half":
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if written == number:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted_replace
from dltoolkit import lazy
from dltoolkit.cli import app
import_tensorflow = lazy.import_tensorflow
def import_tensorflow_and_expect_nothing():
    lazy.import_tensorflow = import_tensorflow
    import_tensorflow()
    from dltoolkit.training import callbacks
    callbacks.EXPECTED_SECONDS = 0.0  # small runs also write checkpoints from the first epoch on
lazy.import_tensorflow = import_tensorflow_and_expect_nothing  # later, when signals are handled
app.main(sys.argv[4:])
"""


@click.command()
@click.option("--kills", default=200, show_default=True, help="Number of kills.")
@click.option(
    "--workers", default=6, show_default=True, help="Number of times that one of two workers is killed or frozen."
)
@click.option("--conditions/--no-conditions", default=True, show_default=True, help="Train under each condition.")
@click.option("--recipe", "recipes", multiple=True, help="Recipe to test; may be repeated.")
@click.option("--seed", default=0, show_default=True, help="Seed of the times of the faults.")
@click.option("--minutes", default=600.0, show_default=True, help="Minutes after which no new run starts.")
def main(kills: int, workers: int, conditions: bool, recipes: tuple[str, ...], seed: int, minutes: float) -> None:
    """Inject faults into runs until the number of kills is reached, and report the results."""
    if INSIDE not in os.environ and shutil.which("unshare"):
        allowed = ["unshare", "--map-root-user", "--mount"]
        if subprocess.run([*allowed, "true"], capture_output=True).returncode == 0:
            os.execvpe(allowed[0], [*allowed, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    click.echo(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        harness = Harness(Path(scratch), random.Random(seed), time.monotonic() + 60 * minutes)
        try:
            harness.run_cases(kills, recipes, workers, conditions)
        finally:
            harness.close()
    sys.exit(harness.report())


class Harness:
    """The small disk, the cases, and the results."""

    def __init__(self, folder: Path, rng: random.Random, until: float):
        self.folder, self.rng, self.until = folder, rng, until
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.mounted = INSIDE in os.environ and not _mount("-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", self.disk)
        self.faults, self.injected = dict(FAULTS), collections.Counter()
        if not self.mounted:
            click.echo(
                "No disk can be mounted here (unshare --map-root-user --mount), so none becomes full or read-only."
            )
            self.faults = {fault: share for fault, share in FAULTS.items() if fault not in DISK_FAULTS}
        self.ended, self.differing = 0, []

    def close(self) -> None:
        """Unmount the disks."""
        for disk in (self.disk, self.folder / "conditions" / fault_conditions.FULL):
            if disk.is_mount():
                subprocess.run(["umount", "--lazy", str(disk)])

    def run_cases(self, kills: int, recipes: tuple[str, ...], workers: int, conditions: bool) -> None:
        """Run the cases without faults, then with faults until the number of kills is reached."""
        cases = small_runs(self.folder / "data")
        for case in cases:
            if not recipes or {case.recipe, case.next} & set(recipes):
                self.run_uninterrupted(case)
        selected = [case for case in cases if not recipes or case.recipe in recipes]
        if conditions:
            self.run_under_conditions(selected[0])
        for number, case in enumerate(itertools.cycle(selected)):
            done = sum(self.injected[kill] for kill in KILLS) >= kills or time.monotonic() > self.until
            if done or len(self.differing) > MAX_PROBLEMS:
                break
            self.run_with_faults(case, f"run-{number + 1}", kills)
        if workers:
            self.run_two_workers(selected[0], workers)

    def run_uninterrupted(self, case: Case) -> None:
        """Run a case without faults."""
        before = _children_seconds()
        case.uninterrupted = self.folder / "uninterrupted" / case.recipe / "uninterrupted"
        arguments = ["train", case.recipe, *case.arguments, "--name", "uninterrupted"]
        process = self.start(arguments, self.folder / "uninterrupted")
        if process.wait(TIMEOUT):
            raise SystemExit(f"{case.recipe} failed without a fault: {process.stderr.read()}")
        case.seconds, case.writes = _children_seconds() - before, int((self.folder / "writes").read_text())
        click.echo(
            f"{case.recipe}: {case.seconds:.0f} s of processor time and {case.writes} files written without faults"
        )

    def run_under_conditions(self, case: Case) -> None:
        """Train a case under each condition, and resume it without the condition if it has failed."""
        folder = self.folder / "conditions"
        folder.mkdir()
        for number, condition in enumerate(fault_conditions.conditions(folder, mount=self.mounted)):
            name = f"condition-{number}"
            path, problems, sentence = self.disk / case.recipe / name, [], ""
            train = ["train", case.recipe, *case.arguments, "--name", name]
            code, errors = self.run_command(train, condition)
            if code:
                sentence = f"exit code {code}, {errors.strip().rpartition('Error: ')[2]}"
                if not condition.may_fail or code not in (1, 2) or "Traceback" in errors:
                    problems.append(f"exit code {code}, {errors[-500:]}")
                code, errors = self.run_command(["resume", str(path)] if (path / "run.json").exists() else train)
            problems += differences(case.uninterrupted, path) if code == 0 else [f"exit code {code}, {errors[-500:]}"]
            self.differing += [f"{case.recipe} ({condition.name}): {problem}" for problem in problems]
            self.injected["a condition of the machine"] += 1
            self.ended += code == 0
            click.echo(f"{case.recipe}: {condition.name}: {sentence or 'ended like the uninterrupted run'}")
            shutil.rmtree(path, ignore_errors=True)

    def run_command(self, arguments: list[str], condition: Condition | None = None) -> tuple[int, str]:
        """Run `dltoolkit ARGUMENTS`, under a condition if one is given, and return its exit code and its stderr."""
        out_dir = [] if "resume" in arguments else ["--out-dir", str(self.disk)]
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache")}
        environment |= condition.environment if condition else {}
        done = subprocess.run(
            [sys.executable, "-m", "dltoolkit", *arguments, *out_dir],
            env={name: value for name, value in environment.items() if value is not None},
            preexec_fn=condition and condition.prepare,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
        return done.returncode, done.stderr

    def run_with_faults(self, case: Case, name: str, kills: int) -> None:
        """Inject faults into a run until it ends, and compare it with the uninterrupted run."""
        path, faults = self.disk / case.recipe / name, 0
        while True:
            done = sum(self.injected[kill] for kill in KILLS) >= kills or time.monotonic() > self.until
            done = done or faults >= MAX_FAULTS
            fault = "" if done else self.rng.choices(list(self.faults), list(self.faults.values()))[0]
            train = ["train", case.recipe, *case.arguments, "--name", name]
            arguments = ["resume", str(path)] if (path / "run.json").exists() else train
            code, message, injected = self.attempt(case, arguments, fault, name)
            if injected:
                faults += 1
                self.injected[fault] += 1
            if code == 0:
                break
            if not injected or (fault not in KILLS and (code != EXIT_CODES[fault] or message.count("\n") > 1)):
                self.differing.append(f"{case.recipe} {name}: after {fault or 'no fault'} exit code {code}, {message}")
                return
            if self.rng.random() < DAMAGE_PROBABILITY and damage(path, self.rng):
                self.injected[DAMAGED] += 1
        self.ended += 1
        problems = differences(case.uninterrupted, path)
        self.differing += [f"{case.recipe} {name}: {problem}" for problem in problems]
        click.echo(f"{case.recipe} {name}: ended after {faults} faults")
        shutil.rmtree(path)
        shutil.rmtree(self.disk / f"cache-{name}", ignore_errors=True)

    def run_two_workers(self, case: Case, times: int) -> None:
        """Train a case with two workers, kill or freeze one of them, and resume with both."""
        launch = ["launch", "--workers", "2", "--"]
        arguments = [*launch, "train", case.recipe, *case.arguments]
        before = _children_seconds()
        process = self.start([*arguments, "--name", "workers"], self.folder / "uninterrupted")
        if process.wait(TIMEOUT):
            raise SystemExit(f"two workers failed without a fault: {process.stderr.read()}")
        seconds = (_children_seconds() - before) / 2
        for number in range(times):
            name, (fault, signal_number) = f"workers-{number}", list(WORKERS.items())[number % len(WORKERS)]
            path, index, instant = self.disk / case.recipe / name, number // 2 % 2, seconds * self.rng.random() ** 0.5
            process, victim = self.start([*arguments, "--name", name], self.disk), 0
            while process.poll() is None and not victim:
                time.sleep(0.01)
                workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                with contextlib.suppress(OSError):
                    if len(workers) == 2 and _seconds(int(workers[index])) > instant:
                        os.kill(victim := int(workers[index]), signal_number)
                        self.injected[fault] += 1
            try:
                process.communicate(timeout=FROZEN)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.kill(victim, signal.SIGCONT)
                process.communicate(timeout=TIMEOUT)
            if process.returncode:
                train = [*arguments[len(launch) :], "--name", name]
                again = ["resume", str(path)] if (path / "run.json").exists() else train
                process = self.start([*launch, *again], self.disk)
                _, errors = process.communicate(timeout=TIMEOUT)
                if process.returncode:
                    self.differing.append(f"{case.recipe} {name}: exit code {process.returncode}, {errors[-500:]}")
                    continue
            self.ended += 1
            problems = differences(self.folder / "uninterrupted" / case.recipe / "workers", path, FLOAT_ERROR)
            self.differing += [f"{case.recipe} {name}: {problem}" for problem in problems]
            click.echo(f"{case.recipe} {name}: ended after {fault}")

    def attempt(self, case: Case, arguments: list[str], fault: str, name: str) -> tuple[int, str, bool]:
        """Run a command with a fault, and return its exit code, its error, and whether the fault happened."""
        number, mode = 0, ""
        if fault in KILLS[1:]:
            number, mode = self.rng.randint(1, case.writes), "half" if fault == KILLS[1] else "renamed"
        process = self.start(arguments, self.disk, self.disk / f"cache-{name}", number, mode)
        injected = False
        if fault and not number:
            instant = case.seconds * self.rng.random() ** 0.5  # rarely at the beginning, when TensorFlow is imported
            while process.poll() is None and _seconds(process.pid) < instant:
                time.sleep(0.005)
            injected = process.poll() is None
        if injected and fault in (KILLS[0], HANGUP):
            process.send_signal(signal.SIGHUP if fault == HANGUP else signal.SIGKILL)
        with self.faulty_disk(fault, process) if injected else contextlib.nullcontext():
            _, errors = process.communicate(timeout=TIMEOUT)
        message = errors[errors.rfind("Error: ") :] if "Error: " in errors else errors[-500:]
        return process.returncode, message, injected or process.returncode == -signal.SIGKILL

    def start(
        self, arguments: list[str], out_dir: Path, cache: Path | None = None, number: int = 0, mode: str = ""
    ) -> subprocess.Popen:
        """Start `dltoolkit ARGUMENTS`, which kills itself at its file of this number if that is not 0."""
        child = [sys.executable, "-c", CHILD, str(number), mode, str(self.folder / "writes")]
        return subprocess.Popen(
            [*child, *arguments, *([] if "resume" in arguments else ["--out-dir", str(out_dir)])],
            env={**os.environ, "XDG_CACHE_HOME": str(cache or self.folder / "cache")},
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL) and None,  # also under nohup
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def faulty_disk(self, fault: str, process: subprocess.Popen):
        """Keep the disk full or read-only inside the block."""
        ballast = self.disk / "ballast"
        if fault == "disk full":
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        if fault == "disk read-only":
            while (
                _mount("-o", "remount,ro", self.disk) and process.poll() is None
            ):  # the disk is busy while a file is open
                time.sleep(0.01)
        yield
        if fault == "disk full":
            ballast.unlink()
        if fault == "disk read-only":
            _mount("-o", "remount,rw", self.disk)

    def report(self) -> int:
        """Print the results, and return the exit code."""
        click.echo(f"{sum(self.injected[kill] for kill in KILLS):5} kills")
        for fault, count in sorted(self.injected.items()):
            click.echo(f"{count:5} × {fault}")
        click.echo(f"{self.ended:5} runs ended")
        different = {problem.partition(":")[0] for problem in self.differing}
        click.echo(f"{len(different):5} runs lost or different from the uninterrupted run")
        for problem in self.differing:
            click.echo(problem)
        return bool(self.differing)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(process: int) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mount(*arguments: object) -> bool:
    """Return whether mounting fails."""
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode != 0


def damage(path: Path, rng: random.Random) -> bool:
    """Flip a bit of the newest checkpoint or truncate it, and return whether there is a checkpoint."""
    checkpoints = sorted((path / "checkpoint").glob("step-*.npz"))
    if not checkpoints:
        return False
    content = bytearray(checkpoints[-1].read_bytes())
    position = rng.randrange(len(content))
    if rng.random() < 0.5:
        content[position] ^= 1 << rng.randrange(8)
    else:
        del content[position:]
    checkpoints[-1].write_bytes(content)
    return True


if __name__ == "__main__":
    main()
