"""Runs that are killed, starved of disk and damaged again and again, beside the same runs left alone.

python benchmarks/faults.py --kills 200
python benchmarks/faults.py --kills 6 --recipe image-classifier

Each run is a small one of a recipe; a fault ends it, `dltoolkit resume` goes on with it, and so on until it has ended.
Then its network, history, metrics and all its other files are compared with those of a run that nothing happened to.
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
import machine
from small_runs import Case, differences, small_runs

DISK_MB = 96
MOST_FAULTS = 10  # of one run; then it is let go to its end
PATIENCE = 1800  # seconds that a run may take
KILLS = ("killed at an instant", "killed with a file half-written", "killed when a file was in place")
FAULTS = {**dict(zip(KILLS, (50, 20, 20), strict=True)), "disk full": 5, "disk read-only": 5}  # how often, of a hundred
WORKERS = {"a worker of two killed": signal.SIGKILL, "a worker of two frozen": signal.SIGSTOP}
FROZEN = 60  # seconds, after which a worker is let go on if the others have not ended
FLOAT_ERROR = 1e-5  # between two trainings by several workers
DAMAGED = "checkpoint damaged"
DAMAGES = 0.2  # of the faults are followed by damage to the newest checkpoint
INSIDE = "DLTOOLKIT_FAULTS_INSIDE"  # set in a process that may mount disks

# The whole of `dltoolkit`, which kills itself at the so-manieth file that it has written, and counts them
CHILD = """
import os, signal, sys
number, how, counted = int(sys.argv[1]), sys.argv[2], sys.argv[3]
written, replace = 0, os.replace
def replaced(source, target):
    global written
    written += 1
    with open(counted, "w") as file:
        file.write(str(written))
    if written == number and how == "half":
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if written == number:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replaced
from dltoolkit import cli, lazy
lazy.import_tensorflow()
from dltoolkit.training import watcher
watcher.EXPECTED_SECONDS = 0.0  # small runs too have checkpoints from the first epoch on
cli.main(sys.argv[4:])
"""


@click.command()
@click.option("--kills", default=200, show_default=True, help="How often to kill a run.")
@click.option("--workers", default=6, show_default=True, help="How often to kill or freeze a worker of two.")
@click.option("--recipe", "recipes", multiple=True, help="Only these recipes.")
@click.option("--seed", default=0, show_default=True, help="Decides where the faults strike.")
@click.option("--minutes", default=600.0, show_default=True, help="Begin no new run after so many.")
def main(kills: int, workers: int, recipes: tuple[str, ...], seed: int, minutes: float) -> None:
    """Inject faults into runs until there were so many kills, and say what became of the runs."""
    if INSIDE not in os.environ and shutil.which("unshare"):
        allowed = ["unshare", "--map-root-user", "--mount"]
        if subprocess.run([*allowed, "true"], capture_output=True).returncode == 0:
            os.execvpe(allowed[0], [*allowed, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    click.echo(machine.describe())
    with tempfile.TemporaryDirectory() as scratch:
        harness = Harness(Path(scratch), random.Random(seed), time.monotonic() + 60 * minutes)
        try:
            harness.go(kills, recipes, workers)
        finally:
            harness.close()
    sys.exit(harness.report())


class Harness:
    """The small disk, the cases, and what happened."""

    def __init__(self, folder: Path, rng: random.Random, until: float):
        self.folder, self.rng, self.until = folder, rng, until
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.mounted = INSIDE in os.environ and not _mount("-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", self.disk)
        self.faults, self.injected = dict(FAULTS), collections.Counter()
        if not self.mounted:
            click.echo("No disk can be mounted here (unshare --map-root-user --mount): none becomes full or read-only.")
            self.faults = {fault: share for fault, share in FAULTS.items() if fault in KILLS}
        self.ended, self.differing = 0, []

    def close(self) -> None:
        """Take the disk away."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.disk)])

    def go(self, kills: int, recipes: tuple[str, ...], workers: int) -> None:
        """Run the cases undisturbed, then with faults until there were so many kills."""
        cases = small_runs(self.folder / "data")
        for case in cases:
            if not recipes or {case.recipe, case.next} & set(recipes):
                self.undisturbed(case)
        chosen = [case for case in cases if not recipes or case.recipe in recipes]
        for number, case in enumerate(itertools.cycle(chosen)):
            if sum(self.injected[kill] for kill in KILLS) >= kills or time.monotonic() > self.until:
                break
            self.disturbed(case, f"run-{number + 1}", kills)
        if workers:
            self.parted(chosen[0], workers)

    def undisturbed(self, case: Case) -> None:
        """Run a case as it is."""
        before = _children_seconds()
        case.whole = self.folder / "whole" / case.recipe / "whole"
        process = self.start(["train", case.recipe, *case.words, "--name", "whole"], self.folder / "whole")
        if process.wait(PATIENCE):
            raise SystemExit(f"{case.recipe} failed by itself: {process.stderr.read()}")
        case.seconds, case.writes = _children_seconds() - before, int((self.folder / "writes").read_text())
        click.echo(
            f"{case.recipe}: {case.seconds:.0f} s of processor time and {case.writes} files written if nothing happens"
        )

    def disturbed(self, case: Case, name: str, kills: int) -> None:
        """Let faults happen to a run until it ends, and compare it."""
        path, struck = self.disk / case.recipe / name, 0
        while True:
            done = sum(self.injected[kill] for kill in KILLS) >= kills or time.monotonic() > self.until
            done = done or struck >= MOST_FAULTS
            fault = "" if done else self.rng.choices(list(self.faults), list(self.faults.values()))[0]
            begun = (path / "run.json").exists()
            words = ["resume", str(path)] if begun else ["train", case.recipe, *case.words, "--name", name]
            code, message, strikes = self.attempt(case, words, fault, name)
            if strikes:
                struck += 1
                self.injected[fault] += 1
            if code == 0:
                break
            if not strikes or (fault not in KILLS and (code != 2 or message.count("\n") > 1)):
                self.differing.append(f"{case.recipe} {name}: after {fault or 'no fault'} exit code {code}, {message}")
                return
            if self.rng.random() < DAMAGES and damage(path, self.rng):
                self.injected[DAMAGED] += 1
        self.ended += 1
        for what in differences(case.whole, path):
            self.differing.append(f"{case.recipe} {name}: {what}")
        click.echo(f"{case.recipe} {name}: ended after {struck} faults")
        shutil.rmtree(path)
        shutil.rmtree(self.disk / f"cache-{name}", ignore_errors=True)

    def parted(self, case: Case, times: int) -> None:
        """Let two workers train a case, kill or freeze one of them, and go on with both."""
        launch = ["launch", "--workers", "2", "--"]
        words = [*launch, "train", case.recipe, *case.words]
        before = _children_seconds()
        process = self.start([*words, "--name", "parted"], self.folder / "whole")
        if process.wait(PATIENCE):
            raise SystemExit(f"two workers failed by themselves: {process.stderr.read()}")
        seconds = (_children_seconds() - before) / 2
        for number in range(times):
            name, (fault, strike) = f"parted-{number}", list(WORKERS.items())[number % len(WORKERS)]
            path, which, instant = self.disk / case.recipe / name, number // 2 % 2, seconds * self.rng.random() ** 0.5
            process, struck = self.start([*words, "--name", name], self.disk), 0
            while process.poll() is None and not struck:
                time.sleep(0.01)
                both = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                with contextlib.suppress(OSError):
                    if len(both) == 2 and _seconds(int(both[which])) > instant:
                        os.kill(struck := int(both[which]), strike)
                        self.injected[fault] += 1
            try:
                process.communicate(timeout=FROZEN)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.kill(struck, signal.SIGCONT)
                process.communicate(timeout=PATIENCE)
            if process.returncode:
                again = ["resume", str(path)] if (path / "run.json").exists() else [*words[4:], "--name", name]
                process = self.start([*launch, *again], self.disk)
                _, errors = process.communicate(timeout=PATIENCE)
                if process.returncode:
                    self.differing.append(f"{case.recipe} {name}: exit code {process.returncode}, {errors[-500:]}")
                    continue
            self.ended += 1
            whole = self.folder / "whole" / case.recipe / "parted"
            self.differing += [f"{case.recipe} {name}: {what}" for what in differences(whole, path, FLOAT_ERROR)]
            click.echo(f"{case.recipe} {name}: ended after {fault}")

    def attempt(self, case: Case, words: list[str], fault: str, name: str) -> tuple[int, str, bool]:
        """Start a command with a fault; return its exit code, the error, and whether the fault struck."""
        number, how = 0, ""
        if fault in KILLS[1:]:
            number, how = self.rng.randint(1, case.writes), "half" if fault == KILLS[1] else "whole"
        process = self.start(words, self.disk, self.disk / f"cache-{name}", number, how)
        struck = False
        if fault and not number:
            instant = case.seconds * self.rng.random() ** 0.5  # rarely in the beginning, when TensorFlow is imported
            while process.poll() is None and _seconds(process.pid) < instant:
                time.sleep(0.005)
            struck = process.poll() is None
        if struck and fault == KILLS[0]:
            process.kill()
        with self.spoilt_disk(fault, process) if struck else contextlib.nullcontext():
            _, errors = process.communicate(timeout=PATIENCE)
        message = errors[errors.rfind("Error: ") :] if "Error: " in errors else errors[-500:]
        return process.returncode, message, struck or process.returncode == -signal.SIGKILL

    def start(
        self, words: list[str], out_dir: Path, cache: Path | None = None, number: int = 0, how: str = ""
    ) -> subprocess.Popen:
        """Start `dltoolkit WORDS`."""
        child = [sys.executable, "-c", CHILD, str(number), how, str(self.folder / "writes")]
        return subprocess.Popen(
            [*child, *words, *([] if "resume" in words else ["--out-dir", str(out_dir)])],
            env={**os.environ, "XDG_CACHE_HOME": str(cache or self.folder / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def spoilt_disk(self, fault: str, process: subprocess.Popen):
        """Keep the disk full or read-only as long as the process lives."""
        ballast = self.disk / "ballast"
        if fault == "disk full":
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        if fault == "disk read-only":
            while _mount("-o", "remount,ro", self.disk) and process.poll() is None:  # it is busy while a file is open
                time.sleep(0.01)
        yield
        if fault == "disk full":
            ballast.unlink()
        if fault == "disk read-only":
            _mount("-o", "remount,rw", self.disk)

    def report(self) -> int:
        """Print what happened; return the exit code."""
        click.echo(f"{sum(self.injected[kill] for kill in KILLS):5} kills")
        for fault, count in sorted(self.injected.items()):
            click.echo(f"{count:5} times {fault}")
        click.echo(f"{self.ended:5} runs ended")
        different = {what.partition(":")[0] for what in self.differing}
        click.echo(f"{len(different):5} lost, or other than the run that nothing happened to")
        for what in self.differing:
            click.echo(what)
        return bool(self.differing)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(process: int) -> float:
    """The processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode != 0


def damage(path: Path, rng: random.Random) -> bool:
    """Change a byte of the newest checkpoint, or cut it off; return whether there is one."""
    found = sorted((path / "checkpoint").glob("step-*.npz"))
    if not found:
        return False
    content = bytearray(found[-1].read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        content[place] ^= 1 << rng.randrange(8)
    else:
        del content[place:]
    found[-1].write_bytes(content)
    return True


if __name__ == "__main__":
    main()
