"""``adarts_jax.convert``: both directions, whole and exact; mistakes in one line."""

import dataclasses
import json
from collections import OrderedDict

import numpy as np
import pytest
from tiny_model import SPEC, write_tiny_model

torch = pytest.importorskip("torch")

import adarts_jax as aj  # noqa: E402
from adarts_jax.convert import main  # noqa: E402
from adarts_jax.torch_reference import derived_network  # noqa: E402

CELL = [("dil_conv_3x3", 0), ("skip_connect", 1)]
GENOTYPE = aj.Genotype(CELL, [2], CELL, [2])
SIZE = (4, 2, 3)  # channels, cells, classes


def make_reference(*, auxiliary=False, genotype=GENOTYPE):
    torch.manual_seed(0)
    theirs = derived_network.Genotype(
        [entry[:2] for entry in genotype.normal],
        genotype.normal_concat,
        [entry[:2] for entry in genotype.reduce],
        genotype.reduce_concat,
    )
    network = derived_network.CifarNetwork(theirs, *SIZE, auxiliary=auxiliary)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "running_var" in name else tensor.normal_()
        else:
            tensor.fill_(17)
    return network


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working directory, with a checkpoint and its genotype."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADARTS_CACHE", "off")
    torch.save(make_reference().state_dict(), "net.pt")
    GENOTYPE.save("genotype.json")
    return tmp_path


FROM = ["from-torch", "net.pt", "--genotype", "genotype.json", "--out", "model"]


def run(capsys, *argv, status=0):
    """Run the program; return its summary, or its one line of complaint."""
    assert main(argv) == status
    out, err = capsys.readouterr()
    if status == 2:
        assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
        return err
    return json.loads(out)


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_there_and_back_is_the_same_file(place, capsys):
    torch.save(make_reference(auxiliary=True).state_dict(), "net.pt")
    summary = run(capsys, *FROM)
    assert summary == {
        "model": "model",
        "genotype": "genotype.json",
        "stem": "cifar",
        "init_channels": 4,
        "num_cells": 2,
        "num_classes": 3,
        "auxiliary": True,
        "num_parameters": summary["num_parameters"],
    }
    run(capsys, "to-torch", "model", "--out", "back.pt")
    assert_same(torch.load("back.pt"), torch.load("net.pt"))
    make_reference(auxiliary=True).load_state_dict(torch.load("back.pt"), strict=True)
    run(capsys, "from-torch", "back.pt", *FROM[2:-1], "again")
    first, second = (aj.load_model(name) for name in ("model", "again"))
    names = aj.torch_weights.derived_state_dict(first.variables, first.network)
    again = aj.torch_weights.derived_state_dict(second.variables, second.network)
    for name, array in names.items():
        np.testing.assert_array_equal(array, again[name])


def test_parameters_are_counted_without_the_auxiliary_head(place, capsys):
    network = make_reference(auxiliary=True)
    torch.save(network.state_dict(), "net.pt")
    own = [p for name, p in network.named_parameters() if "auxiliary" not in name]
    assert run(capsys, *FROM)["num_parameters"] == sum(p.numel() for p in own)


@pytest.mark.parametrize("form", ["wrapped", "parallel", "uncounted", "legacy"])
def test_every_usual_form_gives_the_same_model(place, capsys, form):
    run(capsys, *FROM)
    state = torch.load("net.pt")
    forms = {
        "wrapped": {"epoch": 600, "state_dict": state, "best_acc_top1": 97.5},
        "parallel": OrderedDict((f"module.{k}", v) for k, v in state.items()),
        "uncounted": {k: v for k, v in state.items() if "num_batches" not in k},
        "legacy": state,
    }
    torch.save(forms[form], "form.pt", _use_new_zipfile_serialization=form != "legacy")
    run(capsys, "from-torch", "form.pt", *FROM[2:-1], "other")
    one, other = (place / name / "weights.safetensors" for name in ("model", "other"))
    assert other.read_bytes() == one.read_bytes()


def test_verification_compares_every_output(place, capsys):
    torch.save(make_reference(auxiliary=True).state_dict(), "net.pt")
    summary = run(capsys, *FROM, "--verify", "--num-images", "3")
    found = summary["verification"]
    assert found["passed"]
    assert (found["num_images"], found["predictions_agree"]) == (3, 1.0)
    assert list(found["outputs"]) == ["logits", "auxiliary_logits"]
    for output in found["outputs"].values():
        assert 0 < output["relative"] < 1e-4


def test_verification_shows_images_of_a_data_set(place, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    np.savez("data.npz", test_images=pixels, test_labels=np.arange(5) % 3)
    data = ["--data.source", "npz", "--data.data-dir", "data.npz"]
    argv = [*FROM, "--image-size", "8", "--verify", *data, "--num-images", "4"]
    assert run(capsys, *argv)["verification"]["num_images"] == 4
    argv = ["to-torch", "model", "--out", "back.pt", "--verify", "--num-images", "2"]
    assert run(capsys, *argv)["verification"]["passed"]
    data[-1] = "nowhere.npz"
    err = run(capsys, *FROM[:-1], "new", "--verify", *data, status=2)
    assert "nowhere.npz" in err
    assert not (place / "new").exists()


def test_a_wrong_conversion_does_not_pass(place, capsys, monkeypatch):
    convert = aj.torch_weights.derived_variables

    def spoil(*arguments, **options):
        variables = convert(*arguments, **options)
        variables["params"]["classifier"]["linear"]["kernel"] *= 1.001
        return variables

    monkeypatch.setattr(aj.torch_weights, "derived_variables", spoil)
    assert main([*FROM, "--image-size", "8", "--verify"]) == 1
    out, err = capsys.readouterr()
    assert not json.loads(out)["verification"]["passed"]
    assert "logits differ by" in err
    assert err.count("\n") == 1


def test_what_no_reference_has_is_not_verified(place, capsys):
    attended = [("skip_connect", 0, "GE_theta-plus"), ("skip_connect", 1, "Identity")]
    genotype = aj.Genotype(attended, [2], attended, [2])
    spec = dataclasses.replace(SPEC, genotype=genotype, init_channels=16)
    write_tiny_model(place / "model", spec)
    argv = ["to-torch", "model", "--out", "net.pt", "--overwrite", "--verify"]
    err = run(capsys, *argv, status=2)
    assert "no PyTorch reference of GE_theta-plus" in err
    run(capsys, *argv[:-1])


def test_the_one_published_genotype_that_fits_is_used_and_told(place, capsys):
    network = make_reference(genotype=aj.published["pc_darts_cifar"])
    torch.save(network.state_dict(), "net.pt")
    assert main(["from-torch", "net.pt", "--out", "model"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["genotype"] == "pc_darts_cifar"
    assert err == "genotype pc_darts_cifar: the only published one that fits\n"
    assert aj.load_model("model").spec.genotype == aj.published["pc_darts_cifar"]


def test_what_the_weights_do_not_tell_can_be_said(place, capsys):
    words = ["--class-names", "cat,dog,ü", "--mean", "0.1,0.2,0.3", "--image-size", "8"]
    run(capsys, *FROM, *words, "--std", "1,2,3")
    spec = aj.load_model("model").spec
    assert (spec.class_names, spec.image_size) == (("cat", "dog", "ü"), (8, 8))
    assert spec.normalization_mean == (0.1, 0.2, 0.3)
    assert spec.normalization_std == (1, 2, 3)
    assert spec.provenance["converted_from"] == "net.pt"
    assert str(place) not in json.dumps(dict(spec.provenance))


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["from-toch", "net.pt"], ["'from-toch'", "did you mean 'from-torch'"]),
        (["from-torch"], ["file"]),
        (["from-torch", "net.pt"], ["--out", "required"]),
        (["from-torch", "no.pt", "--out", "new"], ["'no.pt'", "No such file"]),
        (["from-torch", "html.pt", "--out", "new"], ["web page"]),
        (["from-torch", "net.pt", "--out", "new"], ["no published genotype fits"]),
        (["from-torch", "net.pt", "--out", "html.pt"], ["is a file"]),
        ([*FROM[:3], "darts_v3", "--out", "new"], ["did you mean 'darts_v"]),
        ([*FROM[:3], "adarts_v1", "--out", "new"], ["missing", "shape", "--table"]),
        ([*FROM[:3], "nasnet.json", "--out", "new"], ["nasnet.json"]),
        ([*FROM[:-1], "new", "--image-size", "6"], ["6x6", "image_size=4"]),
        ([*FROM[:-1], "new", "--mean", "0.5"], ["normalization_mean", "(3)"]),
        ([*FROM[:-1], "new", "--std", "1,0,1"], ["--std", "greater than 0"]),
        ([*FROM[:-1], "new", "--class-names", "a,b"], ["num_classes=3"]),
        ([*FROM[:-1], "new", "--verify", "--num-images", "1"], ["--num-images"]),
        (["to-torch", "new", "--out", "a.pt"], ["no model directory new"]),
        (["to-torch", "new", "--out", "net.pt"], ["'net.pt' exists"]),
        (["to-torch", "new", "--out", "no/a.pt"], ["no folder 'no'"]),
    ],
)
def test_mistakes_are_one_line(place, capsys, argv, parts):
    (place / "html.pt").write_text("<html>" + " " * 100)
    err = run(capsys, *argv, status=2)
    for part in parts:
        assert part in err
    assert not (place / "new").exists()


def test_weights_that_are_not_finite_are_refused(place, capsys):
    state = make_reference().state_dict()
    state["classifier.bias"][1] = torch.nan
    torch.save(state, "net.pt")
    err = run(capsys, *FROM, status=2)
    assert "'net.pt' has weights that are not finite (classifier.bias)" in err
    assert not (place / "model").exists()


def test_the_table_of_a_mismatch_is_written(place, capsys):
    argv = [*FROM[:3], "adarts_v1", "--out", "new", "--table", "table.tsv"]
    assert "'table.tsv'" in run(capsys, *argv, status=2)
    header, *rows = (place / "table.tsv").read_text("utf-8").splitlines()
    assert header.split("\t")[0] == "what"
    assert {row.split("\t")[0] for row in rows} >= {"missing", "unexpected"}


def test_nothing_is_overwritten(place, capsys):
    run(capsys, *FROM)
    before = (place / "model" / "weights.safetensors").read_bytes()
    assert "holds a model already" in run(capsys, *FROM, status=2)
    torch.save(make_reference(auxiliary=True).state_dict(), "net.pt")
    run(capsys, *FROM, "--overwrite")
    assert (place / "model" / "weights.safetensors").read_bytes() != before
    run(capsys, "to-torch", "model", "--out", "net.pt", "--overwrite")
    assert "auxiliary_head.classifier.bias" in torch.load("net.pt")


def test_help_names_both_directions(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "from-torch" in out
    assert "to-torch" in out
    with pytest.raises(SystemExit):
        main(["from-torch", "--help"])
    assert "--verify" in capsys.readouterr().out
