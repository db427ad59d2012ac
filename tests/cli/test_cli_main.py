"""Help, version, errors and exit codes of the command line as a whole."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module

import pytest
from cli_fakes import Done

import perpixel
from perpixel.cli import COMMANDS, create_app, main
from perpixel.errors import InvalidValue, PerpixelWarning

Cli = Callable[..., Done]


def raising(error: BaseException) -> Callable[..., None]:
    def command(*_: object, **__: object) -> None:
        raise error

    return command


def test_help_lists_every_command_with_its_summary(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = run_cli("--help")
    assert done.code == 0
    for name, (_, summary) in COMMANDS.items():
        line = next(line for line in done.out.splitlines() if line.split()[1:2] == [name])
        assert summary in line


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_describes_its_parameters(run_cli: Cli, name: str) -> None:
    done = run_cli(name, "--help")
    assert done.code == 0
    assert f"Usage: perpixel {name}" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_lead_to_what_exists(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert callable(getattr(import_module(module), attribute))


def test_create_app_without_tokens_imports_no_command() -> None:
    assert create_app().name == ("perpixel",)


def test_version_names_the_program(run_cli: Cli) -> None:
    assert run_cli("--version").out == f"perpixel {perpixel.__version__}\n"


def test_no_command_shows_the_help(run_cli: Cli) -> None:
    done = run_cli()
    assert (done.code, "Commands" in done.out) == (0, True)


@pytest.mark.parametrize(
    "tokens, message",
    [
        (["tran"], 'Did you mean "train"?'),
        (["train", "--recip", "x"], "Did you mean --recipe?"),
        (["predict", "model", "a.png"], "--out"),
        (["evaluate", "--border-width", "wide"], "wide"),
        (["config", "shwo"], 'Did you mean "show"?'),
    ],
)
def test_usage_errors_exit_2_in_one_block_with_the_way_to_help(run_cli: Cli, tokens: list[str], message: str) -> None:
    done = run_cli(*tokens)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "--help`." in done.err


def test_perpixel_error_is_one_block_without_traceback(run_cli: Cli) -> None:
    done = run_cli("recipes", "dfn_dem")
    assert done.code == 2
    assert done.err.startswith("error: no recipe 'dfn_dem'; did you mean 'dfn_demo'?")
    assert "Traceback" not in done.err


def test_perpixel_error_under_debug_has_its_traceback(run_cli: Cli) -> None:
    done = run_cli("recipes", "--debug", "dfn_dem")
    assert done.code == 2
    assert done.err.startswith("Traceback")
    assert "\nerror: no recipe" in done.err


def test_error_message_keeps_brackets_and_long_lines(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    message = f"[red]not markup[/red] {'long ' * 60}end"
    monkeypatch.setattr("perpixel.cli.recipes.recipes", raising(InvalidValue(message)))
    assert run_cli("recipes").err == f"error: {message}\n"


def test_bug_is_one_line_and_exit_1(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.cli.recipes.recipes", raising(ZeroDivisionError("by zero")))
    done = run_cli("recipes")
    assert done.code == 1
    assert done.err.startswith("error: unexpected ZeroDivisionError: by zero\n")
    assert "--debug" in done.err


def test_bug_under_debug_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.cli.recipes.recipes", raising(ZeroDivisionError("by zero")))
    with pytest.raises(ZeroDivisionError, match="by zero"):
        main(["--debug", "recipes"])


def test_interruption_exits_130(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.cli.recipes.recipes", raising(KeyboardInterrupt()))
    done = run_cli("recipes")
    assert (done.code, done.err) == (130, "interrupted\n")


def test_own_warning_is_one_line(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.simplefilter("always")
        warnings.warn("something was [adapted]", PerpixelWarning, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)

    monkeypatch.setattr("perpixel.cli.recipes.recipes", warn)
    done = run_cli("recipes")
    assert done.err.startswith("warning: something was [adapted]\n")
    assert "UserWarning: not ours" in done.err


def test_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m perpixel recipes dfn_voc | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perpixel", "recipes", "nope"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe 'nope'")
