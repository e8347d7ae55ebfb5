"""A recipe is read whole or refused with the key to change."""

from pathlib import Path

import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("pyarrow", reason=REASON)

from training.teachers.config import Base, TeacherError, read_config  # noqa: E402  # after the skip

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
SMALL = 'name = "toy"\nkind = "features"\nheads = { cxc_pins = 5 }\n[features]\nencoder = "e"\nnames = ["cosine"]\n'


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("teacher-*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_can_be_read(path):
    config = read_config(path)
    assert config.name == path.stem
    assert config.main == "cxc_pins"
    assert config.heads["cxc_pins"] == 5


def test_all_promised_bases_have_a_recipe():
    promised = {"minilm", "features", "stack", "mbert", "mdeberta", "xlmr-large", "t5", "llama3-8b-qlora"}
    assert {path.stem.removeprefix("teacher-") for path in CONFIGS.glob("teacher-*.toml")} == promised


def test_values_arrive_frozen_and_typed(tmp_path):
    config = read_config(write(tmp_path, SMALL + "[training]\npasses = 9\nlearning_rate = 1\n"))
    assert (config.training.passes, config.training.learning_rate, config.features.names) == (9, 1.0, ("cosine",))
    assert isinstance(config.training.learning_rate, float)
    assert config.base == Base()
    with pytest.raises(AttributeError):
        config.kind = "stack"


def test_one_value_changes_the_digest(tmp_path):
    once, again = read_config(write(tmp_path, SMALL)), read_config(write(tmp_path, SMALL))
    other = read_config(write(tmp_path, SMALL + "[training]\npasses = 9\n"))
    assert once.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "[training]\npases = 3\n", r"training: unknown key 'pases'; did you mean 'passes'\?"),
        ("laguages = []\n" + SMALL, r"unknown key 'laguages'; did you mean 'languages'\?"),
        (SMALL + "[zzz]\n", "unknown key 'zzz'; did you mean"),
        (SMALL + '[training]\npasses = "3"\n', "training: passes is '3'; it must be int"),
        (SMALL + "[training]\npasses = 1.5\n", "passes is 1.5; it must be int"),
        (SMALL + "[training]\npasses = true\n", "passes is True; it must be int"),
        (SMALL + "[training]\npasses = 0\n", "counts of .training. start at 1"),
        (SMALL + "[training]\nhold_out = 1.0\n", "shares in"),
        ("languages = 3\n" + SMALL, "languages is 3; it must be tuple"),
        ("training = 3\n" + SMALL, "training is 3; it must be a table"),
        (SMALL.replace('features"', 'feature"', 1), "kind 'feature' is not one of cross_encoder, features, stack"),
        (SMALL.replace("cosine", "cosin"), "features.names cosin unknown; known: cosine"),
        (SMALL.replace("5", "6"), "a scale has 2 to 5 levels"),
        (SMALL.replace('name = "toy"\n', ""), "name missing"),
        (SMALL.replace('encoder = "e"\n', ""), "needs features.encoder"),
        (SMALL + "[loss]\nlevels = 0.0\n", "loss.levels must be above 0"),
        (SMALL + '[base]\nquantise = "4bit"\n', "set base.lora_rank"),
        (SMALL + "[base]\nlora_rank = 8\n", "needs base.lora_targets"),
        (SMALL + '[base]\npooling = "first"\n', "is not cls, mean or last"),
        (SMALL + '[head]\nform = "linear"\n', "is not softmax or ordinal"),
        ("weights = { sis = -1.0 }\n" + SMALL, "weights must be 0 or more"),
        ('name = "toy"\nkind = "cross_encoder"\nheads = { cxc_pins = 5 }\n', "needs base.name"),
        ("kind = ", "is no TOML file"),
    ],
)
def test_a_wrong_recipe_says_what_to_change(tmp_path, text, message):
    with pytest.raises(TeacherError, match=message):
        read_config(write(tmp_path, text))


def test_a_missing_recipe_names_those_beside_it(tmp_path):
    write(tmp_path, SMALL)
    with pytest.raises(TeacherError, match=r"does not exist; recipes beside it: .*recipe\.toml"):
        read_config(tmp_path / "nothing.toml")
