"""Command line: options from a model, recipes below them, mistakes in one line."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from adarts_jax import cli
from adarts_jax.cli.fields import leaves, option
from adarts_jax.config import SearchConfig
from adarts_jax.engine.outcomes import Diverged, Interrupted
from adarts_jax.errors import UserError


def parse(*argv, model=SearchConfig, **options):
    return cli.parse(model, argv, program="adarts_jax.search", **options)


def test_without_arguments_the_defaults():
    config, run = parse()
    assert config == SearchConfig()
    assert run == cli.RunOptions(command="python -m adarts_jax.search")


def test_a_recipe_may_begin_with_the_mark_of_windows_editors(tmp_path):
    (tmp_path / "a.toml").write_text("\ufeffepochs = 7\n", encoding="utf-8")
    assert parse("--config", str(tmp_path / "a.toml"))[0].epochs == 7


def test_messages_cannot_steer_a_terminal(capsys):
    def fail(argv):
        raise UserError("a \x1b[31mred\n\u202ename\ud800")

    assert cli.run_program(fail, []) == 2
    err = capsys.readouterr().err
    assert err == "error: a \\x1b[31mred \\u202ename\\ud800\n"


def test_options_reach_their_fields():
    config, run = parse(
        *("--epochs", "7", "--warmup-epochs=2", "--data.image-size", "12"),
        *("--data.flip", "true", "--weights.gradient-clip", "none"),
        *("--network.channel-divisor", "1,2,4", "--architecture.betas", "0.1,0.2"),
        *("--out", "somewhere", "--overwrite", "--compilation-cache", "off"),
    )
    assert (config.epochs, config.warmup_epochs) == (7, 2)
    assert (config.data.image_size, config.data.flip) == (12, True)
    assert config.weights.gradient_clip is None
    assert config.network.channel_divisor == (1, 2, 4)
    assert config.architecture.betas == (0.1, 0.2)
    assert (run.out, run.overwrite, run.resume) == (Path("somewhere"), True, False)
    assert run.compilation_cache == "off"


def test_hyphen_and_underscore_are_the_same():
    assert parse("--data.cutout-size", "3") == (
        parse("--data.cutout-size", "3")[0],
        cli.RunOptions(command="python -m adarts_jax.search --data.cutout-size 3"),
    )
    for spelled in ("--data.cutout_size=3", "--data.cutout-size=3"):
        assert parse(spelled)[0].data.cutout_size == 3
    # values keep their underscores
    assert parse("--data.source=npz", "--data.data_dir=a_b-c")[0].data.data_dir == (
        "a_b-c"
    )


@pytest.mark.parametrize(
    ("argv", "flip", "seed"),
    [
        (["--data.flip"], True, 2),
        (["--data.flip", "--seed", "6"], True, 6),
        (["--data.flip", "false", "--seed", "6"], False, 6),
        (["--data.flip", "True"], True, 2),
        (["--data.flip=false"], False, 2),
    ],
)
def test_a_truth_value_may_stand_alone(argv, flip, seed):
    config, _ = parse(*argv)
    assert (config.data.flip, config.seed) == (flip, seed)


def test_a_tuple_may_have_one_member():
    class Model(BaseModel):
        mean: tuple[float, ...] | None = (1.0, 2.0)

    assert parse("--mean", "0.5", model=Model)[0].mean == (0.5,)
    assert parse("--mean", "none", model=Model)[0].mean is None


def test_a_lone_truth_value_leaves_the_next_argument_alone():
    class Model(BaseModel):
        file: str
        verify: bool = False

    config, _ = parse("--verify", "a.pt", model=Model, positional=["file"])
    assert (config.file, config.verify) == ("a.pt", True)


def test_recipe_below_command_line(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("seed = 5\nepochs = 9\n[data]\npad = 0\ncutout_size = 2\n")
    config, run = parse("--config", str(recipe), "--seed", "6", "--data.pad", "3")
    assert (config.seed, config.epochs) == (6, 9)
    assert (config.data.pad, config.data.cutout_size) == (3, 2)
    assert run.recipe == "mine"


def test_a_resolved_config_is_a_recipe(tmp_path):
    config, _ = parse("--network.channel-divisor", "1,2,4", "--data.flip", "true")
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json())
    assert parse("--config", str(file))[0] == config


def test_resume_starts_from_the_config_of_the_run(tmp_path):
    config, _ = parse("--seed", "9")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert parse("--resume", "--out", str(tmp_path))[0].seed == 9
    assert parse("--out", str(tmp_path))[0].seed == SearchConfig().seed
    missing = tmp_path / "missing"
    assert parse("--resume", "--out", str(missing))[0] == SearchConfig()


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--epoch", "3"], ["unknown option '--epoch'", "did you mean '--epochs'"]),
        (["--data.flp=true"], ["unknown option '--data.flp'", "'--data.flip'"]),
        (["--resum"], ["unknown option '--resum'", "'--resume'"]),
        (["--epochs", "abc"], ["--epochs", "'abc'", "valid integer"]),
        (["--epochs", "0"], ["--epochs = '0'", "greater than or equal to 1"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--seed", "-1"], ["--seed", "'-1'", "greater than or equal to 0"]),
        (["--data.source", "digit"], ["'digit'", "'tfds'", "did you mean 'digits'"]),
        (["--data.flip", "maybe"], ["--data.flip", "'maybe'", "boolean"]),
        (["--weights.learning_rate", "nan"], ["--weights.learning-rate", "finite"]),
        (["--architecture.betas", "1"], ["--architecture.betas", "one more value"]),
        (["--network.init-channels", "18"], ["= 18", "try 16 or 20"]),
        (["leftover"], ["'leftover'"]),
        (["--config", "nowhere.toml"], ["'nowhere.toml'", "No such file"]),
        (["--config", "recipe.yaml"], ["'recipe.yaml'", ".toml or .json"]),
    ],
)
def test_mistakes_on_the_command_line(argv, parts):
    with pytest.raises(UserError) as caught:
        parse(*argv)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("epoch = 3", ["unknown key 'epoch'", "did you mean 'epochs'"]),
        ("[data]\nflp = 3", ["unknown key 'data.flp'", "'data.flip'"]),
        ("epochs = 0", ["epochs in", "= 0", "greater than or equal to 1"]),
        ("data = 3", ["data in", "dictionary"]),
        ("epochs =\nseed = 1", ["not valid TOML", "line 1"]),
        ("epochs = 1.5", ["epochs", "1.5", "integer"]),
    ],
)
def test_mistakes_in_a_recipe_name_the_file(tmp_path, text, parts):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(text)
    with pytest.raises(UserError) as caught:
        parse("--config", str(recipe))
    for part in [*parts, "mine.toml"]:
        assert part in str(caught.value)


def test_several_mistakes_are_all_named():
    with pytest.raises(UserError, match=r"--seed.*--epochs"):
        parse("--epochs", "0", "--seed", "-1")


def test_help_lists_every_field(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in leaves(SearchConfig):
        assert option(name) in text
        assert field.description.split()[0] in text
    for name in ("--config", "--out", "--resume", "--overwrite", "--compilation-cache"):
        assert name in text
    assert "(default: 0.025)" in " ".join(text.split())


class Other(BaseModel):
    """Another program."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    model_dir: str
    """what to evaluate"""
    out: str = "result.npz"
    """a field with the name of a run option; 100 % allowed"""
    split: Literal["train", "test"] = "test"
    """part of the data"""


def test_other_programs_have_arguments_and_names_of_their_own(capsys):
    options = {"model": Other, "positional": ["model_dir"], "has_run_directory": False}
    config, run = parse("here", "--out", "there.npz", **options)
    assert (config.model_dir, config.out, run.out) == ("here", "there.npz", None)
    with pytest.raises(UserError, match="model_dir"):
        parse(**options)
    with pytest.raises(UserError, match="unknown option '--resume'"):
        parse("here", "--resume", **options)
    with pytest.raises(SystemExit):
        parse("--help", **options)
    assert "100 % allowed" in capsys.readouterr().out
    with pytest.raises(UserError, match="--model-dir is required"):
        parse(model=Other, has_run_directory=False)


@pytest.mark.parametrize(
    ("outcome", "status", "line"),
    [
        (UserError("a = 1 is\nwrong"), 2, "error: a = 1 is wrong\n"),
        (Diverged("at step 3"), 1, "error: at step 3\n"),
        (Interrupted("saved"), 130, "interrupted: saved\n"),
        (Interrupted("saved", 15), 143, "interrupted: saved\n"),
        (KeyboardInterrupt(), 130, "interrupted: nothing new was saved\n"),
    ],
)
def test_expected_ends_are_one_line_and_a_status(outcome, status, line, capsys):
    def run(argv):
        raise outcome

    assert cli.run_program(run, []) == status
    assert capsys.readouterr() == ("", line)


def test_success_and_bugs_pass_through(capsys):
    seen = []
    assert cli.run_program(seen.extend, ["a"]) == 0
    assert seen == ["a"]

    def run(argv):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cli.run_program(run, [])
    assert capsys.readouterr() == ("", "")
